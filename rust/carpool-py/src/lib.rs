//! The only crate that knows Python: `carpool._core`.
//!
//! | module | what crosses the border there |
//! |---|---|
//! | [`engine`] | submit: items in, in the three ways of calling |
//! | [`awaiting`] | submit from a coroutine |
//! | [`calling`] | blocking calls, and callers that run batches themselves |
//! | [`ticket`] | the caller's end of a submitted request |
//! | [`window`] | many at once, with one that waits for all |
//! | [`shared`] | what all of one batcher refers to; forks |
//! | [`call`] | the callable a decorated function is made of; `vectorcall.rs` is its shortest way |
//! | [`batch`] | out: a closed batch; back: an outcome per request |
//! | [`seat`] | slots that wait: threads detached, loops through a callback |
//! | [`worker`] | a worker thread: what to call, and what came of it |
//! | [`bare`] | handlers called from here, for callers that run them |
//! | [`current`] | what a handler may know of the batch it runs |
//! | [`desk`] | the contexts that handlers run in |
//! | [`pump`] | slots on event loops |
//! | [`alarm`] | exact timers of event loops |
//! | [`step`] | handlers called right there |
//! | [`clock`] | what time it is, for all batchers |
//! | [`cells`] | the memory of requests |
//! | [`border`] | what the core calls: wakes, grouped per loop |
//! | [`wakes`] | waking blocked threads without the interpreter |
//! | [`port`] | one event loop, as the core's wakes see it |
//! | [`awaitable`] | what `await` gets: a raw type; `plain.rs` is the same in ordinary PyO3 |
//! | [`collate`] | items into batches: rows of arrays and tensors copied into buffers that are reused |
//! | [`terms`] | what a call may ask for beyond the plain |
//! | [`asks`] | the terms of every call through one function or view, from its options |
//! | [`keys`] | any hashable object as a number |
//! | [`overdue`] | how callers learn that their time is over, from a thread that never attaches |
//! | [`bell`] | waking a loop without the interpreter |
//! | [`errands`] | what such a thread leaves to one of Python's |
//! | [`running`] | the event loop that runs here |
//! | [`run`] | which handlers the present code runs in, for finding deadlocks |
//! | [`waits`] | which of them wait for their own kind, all slots together |
//! | [`watching`] | who is told of requests and of slow handlers |
//! | [`guard`] | what must not be interrupted, and the end of the process |
//! | [`errors`] | the one table from the core's errors to Python's |

#[cfg(target_os = "linux")]
mod alarm;
mod asks;
#[cfg(not(plain))]
mod awaitable;
#[cfg(plain)]
#[path = "plain.rs"]
mod awaitable;
mod awaiting;
mod bare;
mod batch;
mod bell;
mod border;
mod call;
mod calling;
mod cells;
mod clock;
mod collate;
mod current;
mod desk;
mod effort;
mod engine;
mod errands;
mod errors;
mod giver;
mod guard;
mod keys;
mod leaving;
mod overdue;
mod port;
mod pump;
mod reader;
mod run;
mod running;
mod seat;
mod shared;
mod step;
mod terms;
mod ticket;
#[cfg(not(plain))]
mod vectorcall;
mod waits;
mod wakes;
mod watching;
mod window;
mod worker;

use pyo3::prelude::*;

#[global_allocator]
static MEMORY: cells::Cells = cells::Cells;

/// The extension module.
#[pymodule(gil_used = true)]
mod _core {
    use super::*;

    #[pymodule_export]
    use asks::Asks;
    #[pymodule_export]
    use bare::Bare;
    #[pymodule_export]
    use batch::Batch;
    #[pymodule_export]
    use call::Call;
    #[pymodule_export]
    use collate::Collation;
    #[pymodule_export]
    use current::CurrentBatch;
    #[pymodule_export]
    use current::CurrentRequest;
    #[pymodule_export]
    use desk::Desk;
    #[pymodule_export]
    use engine::Engine;
    #[pymodule_export]
    use giver::Giver;
    #[pymodule_export]
    use port::Port;
    #[pymodule_export]
    use pump::Pump;
    #[pymodule_export]
    use reader::Steps;
    #[pymodule_export]
    use run::Run;
    #[pymodule_export]
    use seat::Seat;
    #[pymodule_export]
    use ticket::Ticket;
    #[pymodule_export]
    use waits::Waiting;
    #[pymodule_export]
    use window::Convoy;
    #[pymodule_export]
    use window::Window;
    #[pymodule_export]
    use worker::Worker;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        let py = module.py();
        module.add("Awaitable", awaitable::type_object(py)?)?;
        // Types that nobody sees: at first use they would be made under a lock that a fork may meet.
        let _ = py.get_type::<bell::Ear>();
        let _ = py.get_type::<alarm::Ear>();
        let _ = py.get_type::<collate::memory::Memory>();
        #[cfg(not(plain))]
        vectorcall::install(py)?;
        module.add("RAW", cfg!(not(plain)))?;
        clock::learn_origin(py)?;
        module.add("running", run::variable(py)?)?;
        module.add_function(wrap_pyfunction!(current::current_batch, module)?)?;
        module.add_function(wrap_pyfunction!(shared::renew, module)?)?;
        module.add_function(wrap_pyfunction!(clock::stop_clock, module)?)?;
        module.add_function(wrap_pyfunction!(clock::move_clock, module)?)?;
        module.add_function(wrap_pyfunction!(clock::run_clock, module)?)?;
        module.add_function(wrap_pyfunction!(current::note_padding, module)?)?;
        module.add_function(wrap_pyfunction!(shared::forked, module)?)?;
        module.add_function(wrap_pyfunction!(guard::keep_out, module)?)?;
        module.add_function(wrap_pyfunction!(errands::run_errands, module)?)?;
        module.add_function(wrap_pyfunction!(errands::end_errands, module)?)?;
        module.add_function(wrap_pyfunction!(step::first_step, module)?)?;
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
