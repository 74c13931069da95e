"""The core, written in Rust. What is public here is re-exported by `carpool`; the rest is ours."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator, Hashable, Iterable, Mapping, Sequence
from contextvars import Context, ContextVar
from types import GenericAlias
from typing import Any, Generic, Literal, TypeVar, final

from typing_extensions import Self, disjoint_base

from ._types import Reason, Rows
from ._watch.timing import Timing

_A = TypeVar("_A")
_B = TypeVar("_B")
_R_co = TypeVar("_R_co", covariant=True)

__all__ = [
    "RAW",
    "Asks",
    "Awaitable",
    "Bare",
    "Batch",
    "Call",
    "Collation",
    "Convoy",
    "CurrentBatch",
    "CurrentRequest",
    "Desk",
    "Engine",
    "Giver",
    "Port",
    "Pump",
    "Run",
    "Seat",
    "Steps",
    "Ticket",
    "Waiting",
    "Window",
    "Worker",
    "__version__",
    "current_batch",
    "end_errands",
    "first_step",
    "forked",
    "keep_out",
    "move_clock",
    "note_padding",
    "renew",
    "run_clock",
    "run_errands",
    "running",
    "stop_clock",
]

__version__: str

#: Whether `Awaitable` is the raw type; False where the build cannot have it.
RAW: bool

#: The handler that the present code runs in.
running: ContextVar[Run]

def current_batch() -> CurrentBatch:
    """The batch that the handler runs which this is called in.

    For any code of a handler (`def` or `async def`, whoever runs it), of its `context`, and of tasks and
    threads that have a copy of its `contextvars` context, until the handler has ended.

    Raises:
        RuntimeError: no handler runs here.
    """

def note_padding(useful: int, given: int) -> None:
    """The handler that runs here was given so much (elements, rows), of which so much was of use, the rest padding.

    Nothing happens where none runs.
    """

def renew() -> None:
    """Has every decorated function ask for its engine again."""

def stop_clock() -> None:
    """Stops the clock of all batchers of the process.

    Raises:
        RuntimeError: it stands still already.
    """

def move_clock(nanos: int) -> float:
    """Moves the clock that stands on; the moment it stands at then, in seconds. The engines are to be told.

    Raises:
        RuntimeError: it runs.
    """

def run_clock() -> None:
    """Lets it run by itself again; the engines are to be told."""

def forked() -> None:
    """Marks this process as a forked child: every engine belongs to its parent."""

def run_errands() -> bool:
    """Waits for what a thread without the interpreter leaves to be done, and does it; False at the end."""

def end_errands() -> None:
    """Has the thread that runs errands end."""

def keep_out(timeout_ms: int) -> bool:
    """Refuses calls of other threads, and waits for those inside; for the end of the process."""

def first_step() -> tuple[Any, Batch[Any, Any], Any, Any]:
    """The first step of a handler that this thread is taking: handler, batch, context and event loop.

    Raises:
        RuntimeError: none is.
    """

@final
class Awaitable(Coroutine[Any, Any, _R_co], Generic[_R_co]):
    """The answer to come of one request: a future and coroutine-like object."""

    @property
    def _asyncio_future_blocking(self) -> bool: ...
    @_asyncio_future_blocking.setter
    def _asyncio_future_blocking(self, value: bool) -> None: ...
    def __await__(self) -> Generator[Any, Any, _R_co]: ...
    def __iter__(self) -> Generator[Any, Any, _R_co]: ...
    def __next__(self) -> Any: ...
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """For asyncio's C code, which finds its methods through here."""
    def send(self, value: Any, /) -> Any: ...
    def throw(self, typ: Any, val: Any = None, tb: Any = None, /) -> Any: ...
    def close(self) -> None: ...
    def done(self) -> bool:
        """Whether it has ended."""
    def cancelled(self) -> bool:
        """Whether it was cancelled."""
    def result(self) -> _R_co:
        """The result, or its exception raised.

        Raises:
            asyncio.InvalidStateError: it has not ended.
        """
    def exception(self) -> BaseException | None:
        """The exception, or None.

        Raises:
            asyncio.InvalidStateError: it has not ended.
        """
    def cancel(self, msg: object = None) -> bool:
        """Gives up; False when it has ended already."""
    def add_done_callback(self, fn: Callable[[Any], object], *, context: Any = None) -> None:
        """Has `fn(self)` called from its event loop once it has ended."""
    def remove_done_callback(self, fn: Callable[[Any], object], /) -> int:
        """Forgets `fn`; how often it had been added."""
    def get_loop(self) -> Any:
        """The event loop it belongs to."""
    @property
    def timing(self) -> Timing | None:
        """When its request went through the stations of its way, with `keep_timings=True`; None before it has its
        answer, and where it had none from a batch (cancelled, expired)."""
    @property
    def _cancel_message(self) -> object: ...
    def _make_cancelled_error(self) -> BaseException: ...

@final
class Asks:
    """What every call through one function, view or batcher asks for; made from options.

    `level` is the priority, worth as much as the batcher's ageing says at the time of a call. `timeout_ns` is a
    limit of the calls' own (None: no limit); without `own_timeout` that of the batcher counts.

    `measure(item)` gives cost, key and length of one call, a key of None for none; it runs in the caller, before anything
    is submitted.
    """

    def __new__(
        cls,
        *,
        own_timeout: bool = False,
        timeout_ns: int | None = None,
        cost: int = 1,
        length: int = 0,
        measure: Callable[[Any], tuple[int, Hashable | None, int]] | None = None,
        level: int = 0,
        keeps_context: bool = False,
    ) -> Asks: ...

@final
class CurrentRequest:
    """What is known of one request of a batch."""

    @property
    def context(self) -> Context | None:
        """A copy of its caller's `contextvars` context, taken at the call; None without `keep_contexts=True`."""
    @property
    def priority(self) -> int:
        """Smaller is more urgent; 0 unless the call said otherwise."""
    @property
    def deadline(self) -> float | None:
        """When its time is over, in seconds on the clock of `time.monotonic()`; None without a limit."""
    @property
    def left_ms(self) -> float | None:
        """Milliseconds from now to its deadline, negative after it; None without a limit."""
    @property
    def cancelled(self) -> bool:
        """Whether its caller has given up since the batch was sealed: nobody wants the answer."""

@final
class CurrentBatch:
    """The batch that a handler runs, as it was sealed; what `current_batch()` returns."""

    @property
    def size(self) -> int:
        """How many requests it holds."""
    @property
    def reason(self) -> Reason:
        """Why it left: "full", "wait", "cost", "idle", "gather", "flush", "close" or "target"."""
    @property
    def waited_ms(self) -> float:
        """How long the oldest request had waited when the batch was sealed, in milliseconds."""
    @property
    def requests(self) -> tuple[CurrentRequest, ...]:
        """What is known of each request, in the order of the items."""
    def __len__(self) -> int: ...

@final
class Batch(Generic[_A, _B]):
    """Requests that leave together; closed for ever.

    Each is answered exactly once; a batch that is dropped before fails the rest with `BatchAbandoned`.
    """

    @property
    def items(self) -> list[_A]:
        """The items, in order of arrival; with `batch_sizes`, filled up with repeats of the last."""
    @property
    def padded_size(self) -> int:
        """How many rows the handler sees and must return: `len(self)`, or with `batch_sizes` the next size.

        The rows from `len(self)` on belong to no request.
        """
    @property
    def reason(self) -> Reason:
        """Why it left: "full", "wait", "cost", "idle", "gather", "flush", "close" or "target"."""
    @property
    def waited_ms(self) -> float:
        """How long the oldest request had waited when the batch was sealed, in milliseconds."""
    @property
    def done(self) -> bool:
        """Whether every request has its answer."""
    @property
    def requests(self) -> tuple[CurrentRequest, ...]:
        """What is known of each request, in the order of `items`; empty once all were answered in one step."""
    @property
    def _owner(self) -> Any: ...
    @property
    def _run(self) -> Run: ...
    def _split(self, at: int, /) -> Batch[_A, _B]:
        """Takes the requests from `items[at]` on out, into a batch of their own.

        Both hold the slot, which is free when the last of them has ended. Each has its own `items`
        (None for what is answered), `waited_ms` and indices; the other batch figures are those of the whole.

        Raises:
            ValueError: one of the parts would be empty.
        """
    def _leave_out(self) -> float | None:
        """Makes it ready to be run again: without those who gave up, are overdue, or have their answers.

        Who is overdue fails with `DeadlineExceeded`. What is left counts from 0, unless nothing is: then the batch
        is `done` and stays as it was. Returns in how many seconds the next of the others is overdue.
        """
    def _was_too_large(self) -> tuple[int | None, int | None]:
        """Says that its handler ran out of memory; how many requests leave together from now on."""
    def _failed(self, error: BaseException, /) -> None:
        """`fail` with what its handler raised; if that lost this process its device, the batcher is dead."""
    def __len__(self) -> int: ...
    def __class_getitem__(cls, item: Any, /) -> GenericAlias: ...
    def complete(self, results: Rows[_B | Exception], /) -> None:
        """Answers every request with its row of `results`: a list, array or tensor of as many rows as `items`.

        Rows beyond the requests are dropped. A row that is an exception fails its request alone. Rows of arrays and tensors are copied.

        Raises:
            BatchLengthError: a wrong number or kind; every unanswered request has failed with it.
            AlreadyAnswered: one of the requests has its answer already; nothing happened.
        """
    def fail(self, error: BaseException, /) -> None:
        """Fails every unanswered request; each caller gets an exception of its own.

        Raises:
            AlreadyAnswered: there is none.
            TypeError: `error` is no exception.
        """
    def set(self, index: int, result: _B | Exception, /) -> None:
        """Answers the request of `items[index]`; an exception as its result fails it.

        Raises:
            IndexError: the batch has no such request.
            AlreadyAnswered: it has its answer already.
        """
    def fail_item(self, index: int, error: BaseException, /) -> None:
        """Fails the request of `items[index]`.

        Raises:
            IndexError: the batch has no such request.
            AlreadyAnswered: it has its answer already.
            TypeError: `error` is no exception.
        """

@final
class Run:
    """One execution of a handler."""

    @property
    def active(self) -> bool:
        """Whether the handler still runs."""
    def setup(self) -> Run:
        """The mark of a setup that this run waits for; what waits in there for the same function never ends."""
    def end(self) -> None:
        """Ends the mark of a setup."""

@final
class Steps:
    """The reader's end of a stream. Dropping it gives the stream up."""

    def poll(self, callback: Callable[[], object] | None = None) -> Any:
        """A step in a tuple of one; False at the end; None where there is nothing yet.

        Then `callback()`, if given, comes from this event loop when it is worth looking again. Raises what the
        stream failed with.
        """
    def wait(self) -> Any:
        """The same, but waits in this thread until there is something."""
    def cancel(self) -> None:
        """Gives the stream up: before it is in a batch it never reaches the handler, later its row is free."""
    @property
    def is_ours(self) -> bool:
        """Whether it was submitted in this process."""
    @property
    def name(self) -> str:
        """The name of its batcher."""

@final
class Giver:
    """Gives steps to the requests of a batch."""

    def __new__(cls, batch: Batch[Any, Any]) -> Giver: ...
    def step(self, rows: Any) -> list[tuple[int, Any]]:
        """Gives each row its step: STOP ends a row, an exception fails it.

        The places and steps of those whose readers have no room.

        Raises:
            BatchLengthError: a wrong number or kind; nothing was given.
        """
    def give(self, index: int, step: Any) -> bool:
        """Gives one row a step; False where its reader has no room."""
    def wait_room(self, index: int, timeout_ns: int | None) -> bool:
        """Waits until a row has room, or nobody reads it any more; False when the time was over."""
    def poll_room(self, index: int, callback: Callable[[], object]) -> bool:
        """Whether a row has room, or nobody reads it any more.

        If not, `callback()`, which the caller keeps alive, comes when that is so, from any thread.
        """
    def watch(self, callback: Callable[[], object]) -> None:
        """Calls `callback()`, from any thread, when a reader of any stream of this batcher gives up.

        What `is_wanted` says after this misses nobody.
        """
    def unwatch(self, callback: Callable[[], object]) -> None:
        """Calls it no longer."""
    def is_wanted(self) -> bool:
        """Whether anybody still reads."""
    def sweep(self) -> bool:
        """Whether anybody still reads; ends the rows that nobody does."""
    def finish(self) -> None:
        """Ends every row that has not ended."""

@final
class Waiting:
    """A wait inside a handler for that same handler, as long as this is kept."""

@final
class Ticket:
    """The caller's end of a submitted request."""

    @property
    def pending(self) -> bool:
        """True while the request can still be cancelled."""
    @property
    def sealed(self) -> bool:
        """True once it is in a batch."""
    @property
    def is_ours(self) -> bool:
        """Whether it was submitted in this process."""
    @property
    def moments(self) -> tuple[float, float, float, float, float] | None:
        """When it arrived, was sealed, started, finished and delivered, in seconds; None before that."""
    @property
    def name(self) -> str:
        """The name of its batcher."""
    def cancel(self) -> bool:
        """Gives up. True if the request was not sealed yet."""
    def check_wait(self) -> Waiting | None:
        """Refuses (WouldDeadlock) a wait that could never end."""
    def check_chain(self) -> Waiting | None:
        """Refuses (WouldDeadlock) to await the request inside the handler that has to answer it."""
    def lost(self, error: BaseException) -> None:
        """Logs that `error` reached nobody."""

@final
class Convoy:
    """Lists that one reader submits one after the other: together they have no more pending than one would."""

@final
class Window:
    """The caller's end of many requests that were submitted at once."""

    def __len__(self) -> int: ...
    @property
    def left(self) -> int:
        """How many have no outcome yet."""
    @property
    def is_ours(self) -> bool:
        """Whether it was submitted in this process."""
    def take(self, index: int) -> tuple[Any] | None:
        """The outcome of one, to the first who asks; None before it is there."""
    def take_all(self) -> list[Any]:
        """All outcomes in order, once: results, and exceptions in their places. Empty before the end."""
    @property
    def refused(self) -> list[tuple[int, Exception]]:
        """Those that were never submitted, as `asks` could not measure them: place and error of each."""
    def collect(self) -> tuple[list[Any], int]:
        """`take_all` with refused ones in their places, and how many failed."""
    def take_ready(self) -> tuple[list[int], list[Any], int]:
        """Of one that is told per step, what came since the last look: places, outcomes, how many failed.

        Refused ones are not among them.
        """
    def cancel(self) -> None:
        """Gives up on all: what is not in a batch yet never reaches the handler."""

@final
class Seat:
    """A place in the line of those who wait for a batch, for whoever must not block."""

    def poll(
        self, callback: Callable[[], object], max_size: int | None
    ) -> Batch[Any, Any] | float | Literal[False] | None:
        """A Batch; or a float, the seconds after which to poll again; or None; or False.

        `callback()` comes, from any thread, when polling again is worth it. False: closed and drained.
        """
    def leave(self) -> None:
        """Stops waiting."""

@final
class Port:
    """One event loop, as the core's wakes see it; calling it wakes the tasks that became ready."""

    @staticmethod
    def here() -> Port | None:
        """The port of the event loop that runs in this thread; None outside of one."""
    def post(self, callable: Callable[[], object]) -> None:
        """Has `callable()` called from the loop; from any thread, with one wake for many."""

    def __call__(self, *args: Any, **kwargs: Any) -> None: ...

@final
class Pump:
    """One event loop's slot in one batcher; calling it runs what is due."""

    def __call__(self, *args: Any, **kwargs: Any) -> None: ...

@final
class Collation:
    """The fast way of one collator: kinds of items that it knows, and buffers that it uses again."""

    def __new__(
        cls,
        form: str,
        *,
        side: str,
        multiple_of: int,
        max_length: int | None,
        buckets: Sequence[int],
        truncate: str | None,
        extras: tuple[str | None, str | None],
        joined: Callable[[Any, Any, int], Any] | None,
        notes: bool,
    ) -> Self: ...
    def learn(
        self,
        tree: object,
        leaves: Sequence[tuple[Any, Sequence[int] | None, Any]],
        one: tuple[Any, Any, Any],
        /,
    ) -> bool:
        """Remembers a kind of item: its nesting, and of each leaf a sample, the axes that are padded (None: those
        whose lengths differ) and the pad value; 1 in the dtypes of mask, lengths and ends. False where only the
        plain way can collate such items."""
    def collate(self, items: list[Any], size: int, /) -> Any:
        """The batch of items in `size` rows. None: no such item is known; NotImplemented: they are not alike.

        With `notes` a tuple: the batch, its arrays, and of each padded one its place, axes, widths and lengths.
        """

@disjoint_base
class Desk:
    """What stays between the batches of one worker, or of all callers and loops that share it."""

    def __new__(cls) -> Self: ...
    @property
    def context(self) -> Context:
        """What every run begins with a copy of."""
    @property
    def is_set_up(self) -> bool:
        """Whether `setup` has run in this process."""
    def set_up(self, context: Context) -> None:
        """Notes that `setup` has run, and in which context."""

@final
class Bare:
    """A plain function of one list, to be called as it is: no `async def`, no `context`."""

    def __new__(cls, function: Callable[..., Any], desk: Desk, needs_setup: bool) -> Bare: ...

@final
class Worker:
    """A worker thread's end of its engine."""

    def next(self) -> tuple[Callable[..., Any], tuple[Any, ...]] | None:
        """Blocks for a batch: a function to call and its arguments, or None once closed and drained.

        What it returned is to be told by `answered` or `failed`.
        """
    def answered(self, results: Any) -> None:
        """The function returned."""
    def failed(self, error: BaseException) -> None:
        """The function raised."""
    def let_go(self) -> None:
        """Drops what it has in hand, which fails its callers."""

@final
class Engine:
    """One batcher of the core, in this process."""

    def __new__(
        cls,
        *,
        name: str,
        max_batch_size: int,
        wait_ns: int,
        max_queue: int,
        overflow: str,
        slots: int | None,
        executor: str,
        max_batch_cost: int | None = None,
        padded_cost: bool = False,
        look_ahead: int = 0,
        length_window: int = 0,
        gather: bool = True,
        timeout_ns: int | None = None,
        age_ns: int = 0,
        batch_sizes: Sequence[int] | None = None,
        refuse_late: bool = False,
        target_ns: int | None = None,
        on_request: Callable[[Any], object] | None = None,
        sample_rate: float = 1.0,
        slow_ns: int | None = None,
        keep_timings: bool = False,
        steps: int = 16,
        inline: bool = False,
    ) -> Engine: ...
    @property
    def name(self) -> str:
        """Its name."""
    @property
    def is_ours(self) -> bool:
        """Whether it belongs to this process."""
    @property
    def closed(self) -> bool:
        """Whether it takes no more requests."""
    @property
    def executor(self) -> Literal["thread", "loop", "caller"]:
        """Who runs the handler."""
    @property
    def inline(self) -> bool:
        """Whether whoever submits runs the handler."""
    @property
    def idle(self) -> bool:
        """Whether nothing is pending and nothing in flight."""
    @property
    def pending(self) -> int:
        """How many requests are pending."""
    @property
    def keys(self) -> int:
        """How many different keys its requests have."""
    def call(
        self,
        owner: object,
        item: object,
        *,
        asks: Asks | None = None,
        deadline_ns: int | None = None,
        cost: int = 1,
        urgency_ns: int = 0,
        key: Hashable | None = None,
    ) -> Any:
        """The answer to `item`; blocks.

        With `asks` its terms count; else `deadline_ns`: on the clock of `now()`; a request that is not in a batch by then fails with
        DeadlineExceeded and never runs. `cost`: what it counts against `max_batch_cost`. `urgency_ns`: how
        much later (or sooner, negative) than its arrival it stands in the order. `key`: requests share a
        batch only where their keys are equal.
        """
    def acall(
        self,
        owner: object,
        item: object,
        *,
        asks: Asks | None = None,
        deadline_ns: int | None = None,
        cost: int = 1,
        urgency_ns: int = 0,
        key: Hashable | None = None,
    ) -> Awaitable[Any]:
        """An awaitable of the answer to `item`."""
    def submit(
        self,
        owner: object,
        item: object,
        future: object,
        *,
        asks: Asks | None = None,
        deadline_ns: int | None = None,
        cost: int = 1,
        urgency_ns: int = 0,
        key: Hashable | None = None,
    ) -> Ticket:
        """Submits `item`; the outcome goes to `future._resolve(value)` or `future._reject(error)`."""
    def stream(
        self, owner: object, item: object, *, blocks: bool, asks: Asks | None = None
    ) -> Steps:
        """Submits `item` for whoever reads its steps. `blocks`: this thread may wait for room in the queue."""
    def call_many(
        self,
        owner: object,
        items: Iterable[Any],
        *,
        together: bool = False,
        asks: Asks | None = None,
        deadline_ns: int | None = None,
        cost: int = 1,
        urgency_ns: int = 0,
        key: Hashable | None = None,
    ) -> list[Any]:
        """The outcome of each, in order: its result, or the exception in its place; blocks.

        However long the list, a single call waits for two of its batches at most, and `max_queue` is no
        bound to its length. With `asks` cost and key are measured on each item, before any is submitted; what
        that raises is raised here. With `together` they are submitted with a flush, in one moment.
        """
    def submit_many(
        self,
        owner: object,
        items: Iterable[Any],
        callback: Callable[[], object],
        *,
        per_step: bool = False,
        asks: Asks | None = None,
        convoy: Convoy | None = None,
        deadline_ns: int | None = None,
        cost: int = 1,
        urgency_ns: int = 0,
        key: Hashable | None = None,
    ) -> Window:
        """Submits `items`; `callback()` comes, from any thread, once when all have their outcomes.

        With `per_step` also whenever some more have theirs. With `asks` its terms count, and items whose
        cost or key is none are refused by themselves (`Window.refused`). A single call waits for two batches at most
        of all that goes in one `convoy`.
        """
    def next_batch(
        self, max_size: int | None = None, timeout_ns: int | None = None
    ) -> Batch[Any, Any] | None:
        """Blocks for a batch. None: the time is over, or closed and drained."""
    def worker(self, desk: Desk) -> Worker:
        """A worker thread's end of this engine."""
    def seat(self) -> Seat:
        """A place to wait for batches without blocking."""
    def check_wait(self, what: str) -> None:
        """Refuses (WouldDeadlock) a blocking wait that could never end."""
    def check_chain(self) -> None:
        """Refuses (WouldDeadlock) a wait for the handler inside which this is called."""
    def check_end(self) -> None:
        """Refuses (WouldDeadlock) to wait inside a handler until all batches have ended."""
    def on_worker(self) -> Run:
        """What a worker thread sets `running` to: whoever waits there waits for itself."""
    def configure(
        self,
        *,
        max_batch_size: int,
        wait_ns: int,
        max_queue: int,
        slots: int | None,
        max_batch_cost: int | None = None,
        look_ahead: int = 0,
        length_window: int = 0,
        timeout_ns: int | None = None,
        age_ns: int = 0,
        sample_rate: float = 1.0,
        slow_ns: int | None = None,
        target_ns: int | None = None,
        steps: int = 16,
    ) -> None:
        """Keeps to other numbers from the next decision on: all of them or, with ValueError, none."""
    def _clock_moved(self, runs: bool) -> None:
        """The clock has been moved, or runs again: sees to what is due by now."""
    def flush(self) -> None:
        """Makes everything pending leave as soon as a slot is free."""
    def close(self, drain: bool) -> None:
        """Takes no more requests; what is pending runs (`drain`) or fails. Does not wait."""
    def die(self, error: BaseException) -> None:
        """Closes for ever: pending and later callers get a copy of `error`."""
    def wait_ended(self, timeout_ns: int | None = None) -> bool:
        """Blocks until a closed batcher has ended; False when the time was over."""
    def poll_ended(self, callback: Callable[[], object]) -> bool:
        """Whether a closed batcher has ended; if not, `callback()` comes when it has."""
    def stats(self) -> Mapping[str, Any]:
        """All figures, raw; histograms in nanoseconds."""
    def now(self) -> int:
        """Monotonic nanoseconds of the core's clock."""

@disjoint_base
class Call:
    """Base class of decorated functions, and of methods bound to an instance."""

    def __new__(
        cls,
        binder: Callable[..., Any],
        simple: bool,
        awaits: bool,
        asks: Asks | None = None,
        *_args: Any,
        bare: Bare | None = None,
        instance: object = None,
        **_kwargs: Any,
    ) -> Self: ...
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """One result: awaited for handlers made with `async def`, else the caller blocks."""
    def acall(self, *args: Any, **kwargs: Any) -> Any:
        """An awaitable of one result, from any event loop."""
    def _bind(self, *args: Any, **kwargs: Any) -> Any: ...
    def _become_method(self) -> None: ...
    def _run_directly(self, handler: Any, bound: tuple[Any, ...]) -> None: ...
    def _of_instance(self, args: tuple[Any, ...], /) -> tuple[Any, tuple[Any, ...]]: ...
