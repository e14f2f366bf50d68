"""One kernel a file: a wrapper that checks its arguments, and a plain-torch twin that runs everywhere.

| kernel | what it fuses |
| --- | --- |
| `rms_norm` | RMSNorm, alone or after an addition to the residual stream |
| `rotary` | norm of q and k heads, RoPE, write to the KV cache |
| `paged_attention` | attention of decode rows and chunks over the paged KV cache |
| `activation` | SiLU(gate) * up |
| `sampling` | top_k, top_p, min_p and the draw, without a sort |
| `logit_rules` | float32 copies of rows with bans, biases, bad words |
| `penalties` | counts from the history, and the penalties by them |
| `logprobs` | a token's log-probability and rank, and the most likely ones |
| `one_row` | a matrix times one row, with the norm before it, the gate or the addition after it |
| `long_prefill` | attention of one long chunk by cuDNN: gather, and merge of two parts |
"""
