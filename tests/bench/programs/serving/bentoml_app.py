"""The model as a user of BentoML writes it."""

import bentoml


@bentoml.service(workers=2)
class Model:
    @bentoml.api(route="/invocations")
    def invocations(self, data: list, /) -> list:
        return data[:10]
