"""What the fake engine computes: tokens that are a function of seed and position, and log-probabilities of them."""

from array import array
from dataclasses import dataclass
from hashlib import blake2b

from protocol.codec import int32s
from protocol.messages import Finish, PromptLogprobs, StepLogprobs, Submit

EOS_ID = 2


@dataclass(slots=True, kw_only=True)
class FakeRow:
    """One choice."""

    submit: Submit
    number: int
    seed: int
    num_prompt: int
    outputs: list[int]
    num_cached: int
    is_new: bool = True
    aborted: bool = False


def rows_of(submit: Submit, *, num_cached: int) -> list[FakeRow]:
    """A row for each choice."""
    return [
        FakeRow(
            submit=submit,
            number=submit.number + choice,
            seed=(submit.sampling.seed + choice) % 2**64,
            num_prompt=len(submit.prompt) // 4,
            outputs=list(int32s(submit.outputs)),
            num_cached=num_cached,
        )
        for choice in range(submit.num_choices)
    ]


def next_token(seed: int, position: int, vocab_size: int) -> int:
    """What the fake model draws: never the eos token."""
    digest = blake2b(seed.to_bytes(8, "little") + position.to_bytes(8, "little"), digest_size=4).digest()
    token = int.from_bytes(digest, "little") % vocab_size
    return token if token != EOS_ID else EOS_ID + 1


def logprob_of(token: int) -> float:
    """A log-probability that float32 holds exactly."""
    return -0.5 - 0.25 * (token % 4)


def draw(row: FakeRow, *, vocab_size: int, answer: list[int] | None) -> tuple[int, Finish]:
    """The row's next token and whether it ends; an `answer` is given token by token and then eos."""
    sampling, num_outputs = row.submit.sampling, len(row.outputs)
    if row.aborted:
        return 0, Finish.ABORT
    if answer is None:
        token = next_token(row.seed, row.num_prompt + num_outputs, vocab_size)
    else:
        token = answer[num_outputs] if num_outputs < len(answer) else EOS_ID
    if token == EOS_ID and not sampling.ignore_eos:
        return token, Finish.EOS
    if token in sampling.stop_token_ids and num_outputs >= sampling.min_tokens:
        return token, Finish.STOP_TOKEN
    return token, Finish.LENGTH if num_outputs + 1 >= sampling.max_tokens else Finish.RUNNING


def step_logprobs(drawn: list[tuple[FakeRow, int]], *, vocab_size: int) -> StepLogprobs | None:
    """Those of the rows that asked; the alternatives of a token are the ids from its own upwards."""
    asked = [(i, row.submit.sampling.logprobs, token) for i, (row, token) in enumerate(drawn)]
    wanted = [(i, width, token) for i, width, token in asked if width is not None]
    if not wanted:
        return None
    tops = [(token + i) % vocab_size for _, width, token in wanted for i in range(width)]
    return StepLogprobs(
        index=array("i", [i for i, _, _ in wanted]).tobytes(),
        logprobs=array("f", [logprob_of(token) for _, _, token in wanted]).tobytes(),
        ranks=array("i", [1] * len(wanted)).tobytes(),
        widths=array("i", [width for _, width, _ in wanted]).tobytes(),
        top_ids=array("i", tops).tobytes(),
        top_logprobs=array("f", [logprob_of(t) for t in tops]).tobytes(),
    )


def prompt_logprobs(submit: Submit, *, seq: int, vocab_size: int) -> list[PromptLogprobs]:
    """In two chunks where the prompt is long enough; numbered from `seq`."""
    prompt, width = int32s(submit.prompt), submit.prompt_logprobs or 0
    middle = max(1, len(prompt) // 2)
    chunks = [(first, prompt[first:last]) for first, last in ((1, middle), (middle, len(prompt))) if first < last]
    messages = []
    for i, (first, tokens) in enumerate(chunks):
        tops = [(t + k) % vocab_size for t in tokens for k in range(width)]
        messages.append(
            PromptLogprobs(
                seq=seq + i,
                epoch=submit.epoch,
                number=submit.number,
                first=first,
                logprobs=array("f", [logprob_of(t) for t in tokens]).tobytes(),
                ranks=array("i", [1] * len(tokens)).tobytes(),
                width=width,
                top_ids=array("i", tops).tobytes(),
                top_logprobs=array("f", [logprob_of(t) for t in tops]).tobytes(),
            )
        )
    return messages
