"""The defaults as methods, for handlers that extend or call them."""

from __future__ import annotations

from typing import Any

from optml.serving.model import codecs

from . import content_types, decoder, encoder


class DefaultInferenceHandler:
    def default_input_fn(self, input_data: str | bytes, content_type: str, context: object = None) -> Any:
        return decoder.decode(input_data, content_type)

    def default_output_fn(
        self, prediction: Any, accept: str, context: object = None
    ) -> tuple[str | bytes, str]:
        """The prediction in the best available type, and that type."""
        accepted = codecs.accepted(accept, content_types.JSON)
        best = next((each for each in accepted if each in encoder.SUPPORTED_CONTENT_TYPES), accept)
        return encoder.encode(prediction, best), best
