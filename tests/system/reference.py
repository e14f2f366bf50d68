"""What transformers makes of the demo model's weights: greedy continuations and the log-probabilities of every token.

Nothing here is the product's but the path of its files: weights, names and row order are read by transformers itself.
"""

from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

from protocol.launch import ModelFiles
from tests.system.prompts import PROMPTS

NUM_TOKENS = 64
NUM_TOP = 5
# Two ways to add up the same float32 products may swap logits that are as near as this.
SURE_GAP = 1e-3
_MAX_SHORT = 64

_SMOLLM2_135M: dict[str, Any] = {
    "vocab_size": 49152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "head_dim": 64,
    "max_position_embeddings": 8192,
    "rope_theta": 100000.0,
    "tie_word_embeddings": True,
}


@dataclass(frozen=True, slots=True)
class Greedy:
    """One prompt's continuation. Log-probabilities are natural, as of log_softmax."""

    prompt_ids: list[int]
    prompt_logprobs: list[float]  # of prompt token i + 1, after the tokens up to i
    token_ids: list[int]
    num_sure: int  # tokens before the first whose two highest logits are nearer than SURE_GAP
    logprobs: list[float]
    top_logprobs: list[list[float]]  # [NUM_TOKENS][NUM_TOP], highest first


def compute_references(files: ModelFiles) -> dict[str, Greedy]:
    """Half a minute of one core."""
    # With two threads that wait actively for each other, any other busy process makes it ten minutes (tried).
    torch.set_num_threads(1)
    model = _load(files.weights)
    tokenizer = Tokenizer.from_file(f"{files.config_dir}/tokenizer.json")
    prompts = [tokenizer.encode(text, add_special_tokens=False).ids for text in PROMPTS.values()]
    with torch.inference_mode():
        continuations = _continue_all(model, prompts)
        return {
            name: _score(model, prompt, continuation)
            for name, prompt, continuation in zip(PROMPTS, prompts, continuations, strict=True)
        }


def _load(path: str) -> Any:
    """transformers' own model; its methods are not typed."""
    config = LlamaConfig(**_SMOLLM2_135M, rms_norm_eps=1e-5)
    with torch.device("meta"):
        names = LlamaForCausalLM(config)
    read = load_gguf_checkpoint(path, return_tensors=True, model_to_load=names)  # type: ignore[no-untyped-call]  # as above
    assert _SMOLLM2_135M.items() <= read["config"].items(), f"{path} is another model"
    model: Any = LlamaForCausalLM(config)
    unread = model.load_state_dict(read["tensors"], strict=False)
    assert unread.missing_keys == ["lm_head.weight"], "the output layer shares the embeddings, the rest must be there"
    assert unread.unexpected_keys == []
    return model.float().eval()


def _continue_all(model: Any, prompts: list[list[int]]) -> list[list[int]]:
    """Short ones in one batch, long ones in another: padding costs as much as a prompt."""
    short, long = [[prompt for prompt in prompts if (len(prompt) > _MAX_SHORT) == is_long] for is_long in (False, True)]
    of_short, of_long = iter(_generate(model, short)), iter(_generate(model, long))
    return [next(of_long if len(prompt) > _MAX_SHORT else of_short) for prompt in prompts]


def _generate(model: Any, prompts: list[list[int]]) -> list[list[int]]:
    """Greedy, in one left-padded batch; `_score` looks whether padding changed anything."""
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    output = model.generate(ids, attention_mask=mask, max_new_tokens=NUM_TOKENS, do_sample=False)
    return [row[width:].tolist() for row in output]


def _score(model: Any, prompt: list[int], continuation: list[int]) -> Greedy:
    """One unpadded forward pass over prompt and continuation gives every logit that the two depend on."""
    ids = torch.tensor([prompt + continuation])
    logits = model(ids[:, :-1]).logits[0]
    logprobs = torch.log_softmax(logits, dim=-1)
    chosen = logprobs.gather(1, ids[0, 1:, None])[:, 0].tolist()
    border = len(prompt) - 1
    two = logits[border:].topk(2, dim=-1)
    near = (two.values[:, 0] - two.values[:, 1] < SURE_GAP).nonzero()[:, 0].tolist()
    num_sure = near[0] if near else NUM_TOKENS
    assert two.indices[:num_sure, 0].tolist() == continuation[:num_sure], "padding changed a sure token"
    return Greedy(
        prompt_ids=prompt,
        prompt_logprobs=chosen[:border],
        token_ids=continuation,
        num_sure=num_sure,
        logprobs=chosen[border:],
        top_logprobs=logprobs[border:].topk(NUM_TOP, dim=-1).values.tolist(),
    )
