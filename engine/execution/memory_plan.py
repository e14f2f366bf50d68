"""What an engine core takes of its device's memory, part by part, before anything is loaded. Plain data, no torch."""

from dataclasses import dataclass

GIB = 2**30
MIB = 2**20

WEIGHTS = "weights"
CUDA = "CUDA and its libraries"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceMemory:
    """Facts of the device, in bytes."""

    total: int
    free: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryPlan:
    """In bytes. What a step needs has its place here: running out of memory in a step is an error of this plan."""

    device: str
    limit: int  # of all that follows
    limit_name: str  # where the limit comes from, for messages
    parts: dict[str, int]  # everything but the KV cache, under the names that the log shows
    kv_cache: int
    num_cache_tokens: int

    @property
    def needed(self) -> int:
        return sum(self.parts.values()) + self.kv_cache

    @property
    def needed_free(self) -> int:
        """What must be free when the device has just been opened: what opening took is no longer free."""
        return self.needed - self.parts.get(CUDA, 0)

    def line(self) -> str:
        """For the log."""
        parts = {**self.parts, f"KV cache for {self.num_cache_tokens:,} tokens": self.kv_cache}
        listed = " + ".join(f"{name} {size(num_bytes)}" for name, num_bytes in parts.items())
        return f"memory plan of {self.device}: {listed} = {size(self.needed)} of {size(self.limit)} ({self.limit_name})"


def size(num_bytes: int) -> str:
    """As people read it."""
    return f"{num_bytes / GIB:.1f} GiB" if num_bytes >= GIB else f"{num_bytes / MIB:.0f} MiB"
