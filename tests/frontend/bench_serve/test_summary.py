import pytest

from frontend.bench_serve.messages import Sample
from frontend.bench_serve.summary import Percentiles, parse_limit, summarize


def served(*, due_s: float = 0.0, first_s: float = 0.1, tokens: int = 11, tpot_s: float = 0.01) -> Sample:
    last_s = first_s + tpot_s * (tokens - 1)
    return Sample(
        due_s=due_s,
        first_s=first_s,
        last_s=last_s,
        end_s=last_s,
        gaps_s=[tpot_s] * (tokens - 1),
        prompt_tokens=5,
        output_tokens=tokens,
    )


def test_rates_count_only_what_was_served() -> None:
    failed = Sample(due_s=0.0, end_s=2.0, error="HTTP 500: no")
    summary = summarize([served(), served(), failed], [], client_busy=0.5)
    assert (summary.num_requests, summary.num_failed, summary.first_error) == (3, 1, "HTTP 500: no")
    assert summary.duration_s == 2.0
    assert summary.output_tokens_per_s == 11.0
    assert summary.requests_per_s == 1.0
    assert summary.total_tokens_per_s == 16.0
    assert summary.goodput_requests_per_s is None


def test_latencies_in_milliseconds_count_from_when_a_request_was_due() -> None:
    summary = summarize([served(due_s=1.0, first_s=1.25)], [], client_busy=0)
    assert summary.ttft_ms.p50 == pytest.approx(250)
    assert summary.tpot_ms.p99 == pytest.approx(10)
    assert summary.itl_ms.p90 == pytest.approx(10)
    assert summary.e2e_ms.p50 == pytest.approx(350)


def test_percentiles_are_nearest_ranks() -> None:
    samples = [served(first_s=i / 1000) for i in range(1, 101)]
    ttft = summarize(samples, [], client_busy=0).ttft_ms
    assert [ttft.p50, ttft.p90, ttft.p99] == pytest.approx([50, 90, 99])


def test_an_answer_of_one_token_has_no_tpot_and_keeps_any_limit_on_it() -> None:
    summary = summarize([served(tokens=1)], [parse_limit("tpot:0.001")], client_busy=0)
    assert summary.tpot_ms == Percentiles(None, None, None)
    assert summary.goodput_requests_per_s == summary.requests_per_s


def test_goodput_counts_requests_that_keep_every_limit() -> None:
    samples = [served(), served(first_s=0.3), served(tpot_s=0.09), Sample(due_s=0, end_s=1, error="x")]
    summary = summarize(samples, [parse_limit("ttft:200"), parse_limit("tpot:50")], client_busy=0)
    assert summary.goodput_requests_per_s == pytest.approx(1 / summary.duration_s)


@pytest.mark.parametrize("text", ["ttft", "ttft:", "ttft:x", "ttft:0", "ttft:-5", "ttft:nan", "wait:5", ""])
def test_a_wrong_limit_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="ttft:200"):
        parse_limit(text)


def test_a_run_in_which_all_failed_has_no_latencies() -> None:
    summary = summarize([Sample(due_s=0, end_s=1, error="x")], [parse_limit("ttft:5")], client_busy=0)
    assert summary.ttft_ms == Percentiles(None, None, None)
    assert summary.goodput_requests_per_s == 0
