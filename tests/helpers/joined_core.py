"""An engine core over a fake router and a fake runner, driven turn by turn in the test's own thread."""

from engine.config import EnginePlan
from engine.core import EngineCore
from engine.mailbox import Mailbox
from protocol.launch import EngineConfig, ModelFiles
from protocol.messages import PROTOCOL_VERSION, EngineReady, ModelFacts, Welcome
from protocol.scoreboard import Scoreboard
from tests.helpers.fake_router import FakeRouter
from tests.helpers.fake_runner import FakeRunner

VOCAB = 400
BLOCK = 4
KEY = b"k"
EPOCH = 5


class JoinedCore:
    """A core over a fake router."""

    def __init__(
        self,
        *,
        depth: int = 0,
        num_blocks: int = 60,
        budget: int = 64,
        chunked: bool = True,
        max_num_seqs: int = 6,
        max_model_len: int = 64,
        max_logprobs: int = 20,
    ) -> None:
        plan = EnginePlan(
            device="cpu",
            dtype="float32",
            max_model_len=max_model_len,
            block_size=BLOCK,
            num_blocks=num_blocks,
            max_num_seqs=max_num_seqs,
            max_num_batched_tokens=budget,
            vocab_size=VOCAB,
        )
        board = Scoreboard.create(num_api_servers=0, num_engines=1)
        self.row = board.engine_row(0)
        config = EngineConfig(
            rank=0,
            epoch=EPOCH,
            address="",
            hash_key=KEY,
            model=ModelFiles(name="", config_dir="", weights=""),
            max_num_queued_reqs=12,
            max_logprobs=max_logprobs,
            enable_chunked_prefill=chunked,
            scheduling_policy="priority",
            supervisor_pid=0,
            control_fd=0,
            scoreboard_fd=board.fd,
        )
        facts = ModelFacts(architecture="", vocab_size=VOCAB, eos_token_ids=(3,), max_position=max_model_len)
        self.router = FakeRouter()
        self.mailbox = Mailbox(
            self.router,  # type: ignore[arg-type]  # as much of a socket as a mailbox needs
            epoch=EPOCH,
            welcome=Welcome(seq=0, epoch=EPOCH, version=PROTOCOL_VERSION, model=facts, tokenizer_dir=""),
            on_peer_end=lambda _: None,
        )
        self.runner = FakeRunner(plan, depth=depth)
        self.core = EngineCore(config, plan, self.runner, self.mailbox, self.row, eos_ids=(3,))
        self.mailbox.on_peer_end = self.core.end_peer
        self.mailbox.announce_ready(
            EngineReady(
                seq=0,
                epoch=EPOCH,
                num_blocks=num_blocks,
                block_size=BLOCK,
                max_model_len=max_model_len,
                max_num_seqs=max_num_seqs,
                max_num_queued_reqs=12,
                max_num_queued_tokens=1000,
                max_logprobs=max_logprobs,
                prefix_caching=True,
                hash_key=KEY,
                dtype="float32",
                device="cpu",
            )
        )
        self.next_seed = 0

    def step(self) -> None:
        self.core.step()
        self.core.scheduler.check()
