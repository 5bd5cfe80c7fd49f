from dataclasses import dataclass
@dataclass(frozen=True)
class LoopConfig:
    poller: str = "auto"
    poll_every_turns: int = 64
    poll_every_us: int = 100
    spin_us: int = 0
    read_budget_bytes: int = 262144
    accept_batch: int = 128
    debug: bool | None = None
    slow_callback_s: float = 0.1
