"""All generations of one answer as one: a prompt each, choices numbered over all of them, one end, one way to stop."""

from dataclasses import dataclass

from frontend.generation import Generation, start_generation
from frontend.openai_bodies.answers import Usage
from frontend.request import Delta, GenerationRequest, Lane, Sink
from frontend.services import Services
from frontend.translate.answer import AnswerFormat, to_usage
from frontend.translate.prompt_fields import PromptFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerPlan:
    """What is to be generated, and how it is to be written."""

    requests: list[GenerationRequest]  # a prompt each; all with the same number of choices
    prompts: list[PromptFacts]  # parallel to requests
    format: AnswerFormat
    prompt_only: bool = False  # max_tokens 0: what is generated is neither shown nor billed
    usage_chunk: bool = False
    usage_in_each_chunk: bool = False

    @property
    def num_choices(self) -> int:
        """Over all prompts."""
        return sum(request.num_choices for request in self.requests)


class Generations:
    """Under way from the moment it is made; the sink is never called before that."""

    def __init__(self, services: Services, plan: AnswerPlan, sink: Sink) -> None:
        """Raises what `start_generation` raises, with nothing left under way."""
        self._plan = plan
        self._sink = sink
        self._num_running = len(plan.requests)
        self._generations: list[Generation] = []
        try:
            for index, request in enumerate(plan.requests):
                prompt_sink = _PromptSink(self, index, request.num_choices)
                self._generations.append(start_generation(services, request, prompt_sink))
        except Exception:
            self.cancel()
            raise

    @property
    def usage(self) -> Usage:
        """As of now, over all prompts."""
        usages = [generation.usage for generation in self._generations]
        return to_usage(
            prompt_tokens=sum(usage.prompt_tokens for usage in usages),
            completion_tokens=0 if self._plan.prompt_only else sum(usage.completion_tokens for usage in usages),
            cached_tokens=sum(usage.cached_tokens for usage in usages),
        )

    def cancel(self) -> None:
        """Stop what still runs. Idempotent, also after the end."""
        for generation in self._generations:
            generation.cancel()

    def release(self) -> None:
        """Tell the sink what it let the rows hold back."""
        for generation in self._generations:
            generation.release()

    def lane(self, choice: int) -> Lane:
        """Of the sink; choices are numbered over all prompts."""
        return self._sink.lane(choice)

    def prompt_computed(self, index: int) -> None:
        """A prompt's log-probabilities are complete now."""
        self._plan.prompts[index].logprobs = self._generations[index].prompt_logprobs

    def on_delta(self, delta: Delta) -> None:
        """Of any prompt, its choice numbered over all."""
        if self._plan.prompt_only:
            if delta.finish_reason is None:
                return
            delta = Delta(choice=delta.choice, text="", token_ids=[], finish_reason="length")
        self._sink.on_delta(delta)

    def on_end(self) -> None:
        """One prompt is done."""
        self._num_running -= 1
        if self._num_running == 0:
            self._sink.on_end()

    def on_error(self, error: Exception) -> None:
        """One prompt failed, and so the answer."""
        self.cancel()
        self._sink.on_error(error)


class _PromptSink:
    """Numbers one prompt's choices over all prompts."""

    def __init__(self, generations: Generations, index: int, num_choices: int) -> None:
        self._generations = generations
        self._index = index
        self._first_choice = index * num_choices
        self._has_begun = False

    def lane(self, choice: int) -> Lane:
        return self._generations.lane(self._first_choice + choice)

    def on_delta(self, delta: Delta) -> None:
        if not self._has_begun:
            self._has_begun = True
            self._generations.prompt_computed(self._index)
        delta.choice += self._first_choice
        self._generations.on_delta(delta)

    def on_end(self) -> None:
        self._generations.on_end()

    def on_error(self, error: Exception) -> None:
        self._generations.on_error(error)
