"""The engine as a Python object: `LLM(model).generate(prompts)`. A process of its own computes; this one only asks."""

import weakref
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from types import TracebackType
from typing import Any

from frontend.errors import ApiError
from frontend.offline.batch import Asked, Batch, OnOutput
from frontend.offline.errors import EngineError, from_request_error
from frontend.offline.outputs import CompletionOutput, Logprob, RequestOutput
from frontend.offline.progress import progress_bar
from frontend.offline.prompts import Conversation, PromptIds, encode_prompts, render_conversations
from frontend.offline.sampling_params import SamplingParams, default_params, to_request
from frontend.offline.session import Session
from frontend.services import Services
from frontend.settings import SettingsError, check_settings, make_settings
from protocol.errors import InvalidField

__all__ = ["LLM", "CompletionOutput", "EngineError", "Logprob", "RequestOutput", "SamplingParams"]

Params = SamplingParams | Sequence[SamplingParams] | None
Encode = Callable[[Services], Awaitable[list[PromptIds]]]
_OF_A_SERVER = frozenset({"host", "port", "uds", "api_server_count"})


class LLM:
    """One model on one engine core. `close` it: a `with` block does, and so does the program's end."""

    def __init__(self, model: str, **settings: Any) -> None:
        """`settings` are those of `headrace serve`, by the names of its flags: `max_model_len=4096`.

        Raises ValueError for wrong settings or a model that cannot be served, `EngineError` if the engine cannot start.
        """
        for name in sorted(_OF_A_SERVER & settings.keys()):
            raise SettingsError(f"{name} is a setting of headrace serve; an LLM listens nowhere, so leave it out")
        checked = make_settings({"model": model, **settings})
        check_settings(checked)
        self._session = Session(checked)
        self._close = weakref.finalize(self, self._session.close)

    def generate(
        self,
        prompts: str | Sequence[str] | Sequence[Sequence[int]],
        sampling_params: Params = None,
        use_tqdm: bool = True,  # noqa: FBT001, FBT002 - vLLM's name and place
    ) -> list[RequestOutput]:
        """One output per prompt, in their order; without parameters, those that the model recommends.

        Raises ValueError for a prompt or a parameter out of bounds, `EngineError` when the engine fails.
        """
        listed = [prompts] if isinstance(prompts, str) else prompts
        return self._run(partial(encode_prompts, prompts=listed), len(listed), sampling_params, shown=use_tqdm)

    def chat(
        self,
        messages: Conversation | Sequence[Conversation],
        sampling_params: Params = None,
        use_tqdm: bool = True,  # noqa: FBT001, FBT002 - as in `generate`
        **options: Any,
    ) -> list[RequestOutput]:
        """The same for one or several conversations, in the words of the model's chat template.

        `options`: add_generation_prompt, continue_final_message, chat_template_kwargs, tools.
        """
        listed: Any = [messages] if messages and isinstance(messages[0], dict) else messages
        render = partial(render_conversations, conversations=listed, options=options)
        return self._run(render, len(listed), sampling_params, shown=use_tqdm)

    def close(self) -> None:
        """End the engine's process. May be called more than once."""
        self._close()

    def __enter__(self) -> "LLM":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _run(self, encode: Encode, num_prompts: int, params: Params, *, shown: bool) -> list[RequestOutput]:
        self._session.check()
        with progress_bar(num_prompts, shown=shown) as on_output:
            work = _answer(self._session.services, encode, num_prompts, params, on_output)
            return self._session.loop.run(work)


async def _answer(
    services: Services, encode: Encode, num_prompts: int, params: Params, on_output: OnOutput
) -> list[RequestOutput]:
    each = _params_of_each(params or default_params(services.text.defaults), num_prompts)
    try:
        batch = [
            Asked(prompt.text, await to_request(services, prompt.ids, its_params))
            for prompt, its_params in zip(await encode(services), each, strict=True)
        ]
        return await Batch(services, on_output).run(batch)
    except (ApiError, InvalidField) as error:
        raise from_request_error(error) from error


def _params_of_each(params: SamplingParams | Sequence[SamplingParams], num_prompts: int) -> list[SamplingParams]:
    if isinstance(params, SamplingParams):
        return [params] * num_prompts
    if len(params) != num_prompts:
        raise ValueError(f"sampling_params holds {len(params)} for {num_prompts} prompts; give one, or one for each")
    return list(params)
