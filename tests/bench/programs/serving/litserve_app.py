"""The model as a user of LitServe writes it."""

import litserve


class Model(litserve.LitAPI):
    def setup(self, device):
        self.model = 10

    def decode_request(self, request):
        return request

    def predict(self, data):
        return data[: self.model]

    def encode_response(self, output):
        return output


if __name__ == "__main__":
    server = litserve.LitServer(
        Model(api_path="/invocations"), accelerator="cpu", workers_per_device=2, healthcheck_path="/ping"
    )
    server.run(port=8080, num_api_servers=2, generate_client_file=False, log_level="error", access_log=False)
