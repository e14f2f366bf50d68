"""Log-probabilities of token ids in OpenAI's two shapes, and in the one of prompt_logprobs."""

from frontend.openai_bodies.answers import (
    ChatLogprobs,
    ChatTokenLogprob,
    CompletionLogprobs,
    PromptLogprob,
    PromptLogprobList,
    TopLogprob,
)
from frontend.request import TokenLogprob
from frontend.tokenizer import Tokenizer

# JSON has no infinity; -9999 is what clients of this API expect for "impossible".
_LOWEST = -9999.0


def chat_logprobs(tokenizer: Tokenizer, tokens: list[TokenLogprob], *, num_top: int) -> ChatLogprobs:
    """One entry a token, with the `num_top` most likely."""
    return ChatLogprobs(content=[_chat_token(tokenizer, token, num_top) for token in tokens])


def completion_logprobs(
    tokenizer: Tokenizer, tokens: list[TokenLogprob | None], token_ids: list[int], *, num_top: int, offset: int
) -> CompletionLogprobs:
    """Parallel lists. `offset` counts the characters before them; a prompt's first token has no log-probability."""
    texts = [tokenizer.token_text(token_id) for token_id in token_ids]
    offsets = []
    for text in texts:
        offsets.append(offset)
        offset += len(text)
    return CompletionLogprobs(
        text_offset=offsets,
        token_logprobs=[None if token is None else _finite(token.logprob) for token in tokens],
        tokens=texts,
        top_logprobs=[None if token is None else _top_by_text(tokenizer, token, num_top) for token in tokens],
    )


def prompt_logprobs(tokenizer: Tokenizer, tokens: list[TokenLogprob | None], *, num_top: int) -> PromptLogprobList:
    """By position: token id -> what stands behind it, for the prompt's own token and the `num_top` most likely."""
    return [None if token is None else _prompt_token(tokenizer, token, num_top) for token in tokens]


def _chat_token(tokenizer: Tokenizer, token: TokenLogprob, num_top: int) -> ChatTokenLogprob:
    return ChatTokenLogprob(
        token=tokenizer.token_text(token.token_id),
        logprob=_finite(token.logprob),
        bytes=list(tokenizer.token_bytes(token.token_id)),
        top_logprobs=[
            TopLogprob(
                token=tokenizer.token_text(token_id),
                logprob=_finite(logprob),
                bytes=list(tokenizer.token_bytes(token_id)),
            )
            for token_id, logprob in token.top[:num_top]
        ],
    )


def _top_by_text(tokenizer: Tokenizer, token: TokenLogprob, num_top: int) -> dict[str, float]:
    by_text: dict[str, float] = {}
    for token_id, logprob in (*token.top[:num_top], (token.token_id, token.logprob)):
        by_text.setdefault(tokenizer.token_text(token_id), _finite(logprob))  # of equal texts the likelier stays
    return by_text


def _prompt_token(tokenizer: Tokenizer, token: TokenLogprob, num_top: int) -> dict[int, PromptLogprob]:
    ranked = [(token_id, logprob, rank) for rank, (token_id, logprob) in enumerate(token.top[:num_top], start=1)]
    return {
        token_id: PromptLogprob(logprob=_finite(logprob), rank=rank, decoded_token=tokenizer.token_text(token_id))
        for token_id, logprob, rank in (*ranked, (token.token_id, token.logprob, token.rank))
    }


def _finite(logprob: float) -> float:
    return max(logprob, _LOWEST)
