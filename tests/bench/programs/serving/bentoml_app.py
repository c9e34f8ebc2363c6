"""The model as a user of BentoML writes it; its own route for health is another, so /ping is a call."""

import bentoml


@bentoml.service(workers=2)
class Model:
    @bentoml.api(route="/invocations")
    def invocations(self, data: list) -> list:
        return data[:10]

    @bentoml.api(route="/ping")
    def ping(self) -> str:
        return ""
