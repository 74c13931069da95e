//! Where a handler runs: a context of its own, with the mark that it runs.
//!
//! A context that a run has left as it found it serves the next one as well. Whether it did can be seen
//! from outside: a context refers to nothing but an immutable map of its variables. If that is the same
//! object, nothing was set; if nobody else refers to it (nor to the mark), nothing that outlives the run
//! took the context along. Else the context is given up, with its mark, which then stays inactive.

use std::ffi::{c_int, c_void};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pyo3::ffi;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;

use crate::border::PyBorder;
use crate::run::{self, Chain, Run, Subject};
use crate::shared::epoch;

/// What stays between the batches of one worker, or of all callers and loops that share it: the context
/// that `setup` has filled, and whether it has.
#[pyclass(frozen, subclass, weakref, module = "carpool._core")]
pub(crate) struct Desk {
    /// Only locked attached, and never while Python code or drops run.
    context: Mutex<Py<PyAny>>,
    /// One more than the epoch in which `setup` has run: a forked child runs its own.
    set_up_in: AtomicU64,
    /// A context that is ready to be entered: a `Box` as a raw pointer, or null. Only touched attached.
    ready: AtomicPtr<Room>,
}

/// A context to run a handler in.
struct Room {
    context: Py<PyAny>,
    chain: Arc<Chain>,
    engine: u64,
    /// The address of the map of its variables, and how many refer to that, as it was made.
    map: Option<(usize, ffi::Py_ssize_t)>,
}

impl Drop for Desk {
    fn drop(&mut self) {
        let ready = *self.ready.get_mut();
        if !ready.is_null() {
            // SAFETY: the pointer came from `Box::into_raw`, and this object owned it.
            drop(unsafe { Box::from_raw(ready) });
        }
    }
}

impl Desk {
    fn filled(&self) -> MutexGuard<'_, Py<PyAny>> {
        self.context.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether its setup has run in this process.
    #[inline]
    pub(crate) fn is_ready(&self) -> bool {
        self.set_up_in.load(Ordering::Acquire) == epoch() + 1
    }

    /// Enters a context of its own in this thread, for a run of a handler of `engine`.
    #[inline]
    pub(crate) fn enter(
        slf: &Bound<'_, Self>,
        engine: u64,
        arose_in: Vec<Arc<Chain>>,
    ) -> PyResult<Entered> {
        let desk = slf.get();
        let mut kept = None;
        if arose_in.is_empty() {
            let ready = desk.ready.swap(null_mut(), Ordering::AcqRel);
            if !ready.is_null() {
                // SAFETY: the pointer came from `Box::into_raw`, and the swap made it ours.
                kept = Some(unsafe { Box::from_raw(ready) });
            }
        }
        let lasts = arose_in.is_empty();
        let room = match kept.filter(|room| room.engine == engine) {
            Some(room) => room,
            None => Box::new(desk.make_room(slf.py(), engine, arose_in)?),
        };
        room.chain.begin();
        // SAFETY: attached; it is a context, and entered nowhere: whoever entered it has left it before
        // it became ready again.
        if unsafe { ffi::PyContext_Enter(room.context.as_ptr()) } != 0 {
            return Err(PyErr::fetch(slf.py()));
        }
        Ok(Entered {
            desk: slf.clone().unbind(),
            room: Some(room),
            shows: false,
            lasts,
        })
    }

    #[cold]
    fn make_room(&self, py: Python<'_>, engine: u64, arose_in: Vec<Arc<Chain>>) -> PyResult<Room> {
        let chain = Chain::idle(engine, arose_in);
        let mark = Py::new(py, Run::new(chain.clone(), None))?;
        let variable = run::variable(py)?;
        let filled = self.filled().clone_ref(py);
        // SAFETY: attached; `filled` is a context (or the copy is an error), its copy is entered nowhere; the
        // results are owned or an error is set.
        let context = unsafe {
            let copied = ffi::PyContext_Copy(filled.as_ptr());
            let copy = Bound::from_owned_ptr_or_err(py, copied)?;
            if ffi::PyContext_Enter(copy.as_ptr()) != 0 {
                return Err(PyErr::fetch(py));
            }
            let token = ffi::PyContextVar_Set(variable.as_ptr(), mark.as_ptr());
            let set = Bound::from_owned_ptr_or_err(py, token);
            if ffi::PyContext_Exit(copy.as_ptr()) != 0 {
                return Err(PyErr::fetch(py));
            }
            drop(set?);
            copy.unbind()
        };
        let map = map_of(&context);
        Ok(Room {
            context,
            chain,
            engine,
            map,
        })
    }
}

/// Entered; dropping it leaves.
pub(crate) struct Entered {
    desk: Py<Desk>,
    room: Option<Box<Room>>,
    /// A batch can be found by the code that runs here.
    shows: bool,
    /// It may serve the next run.
    lasts: bool,
}

impl Entered {
    /// Lets the code that runs here find its batch, until `hide`, or until this is dropped: before the batch
    /// moves, changes or goes.
    #[inline]
    pub(crate) fn show(&mut self, batch: &carpool_core::Batch<PyBorder>) {
        if let Some(room) = &self.room {
            room.chain.spot().show(Subject::Bare(batch));
            self.shows = true;
        }
    }

    /// The batch can be found no more.
    #[inline]
    pub(crate) fn hide(&mut self) {
        if std::mem::take(&mut self.shows) {
            if let Some(room) = &self.room {
                room.chain.spot().show(Subject::Alone);
            }
        }
    }
}

impl Drop for Entered {
    #[inline]
    fn drop(&mut self) {
        self.hide();
        let Some(room) = self.room.take() else {
            return;
        };
        // SAFETY: whoever runs a handler is attached until it has ended, and drops this there.
        let py = unsafe { Python::assume_attached() };
        // SAFETY: attached; it was entered in this thread by `enter`.
        if unsafe { ffi::PyContext_Exit(room.context.as_ptr()) } != 0 {
            // The handler has left another context entered: then this one is not to be used again.
            PyErr::fetch(py).write_unraisable(py, None);
            self.lasts = false;
        }
        room.chain.end();
        // The mark in the context is the other owner of the chain.
        if self.lasts
            && room.map.is_some()
            && Arc::strong_count(&room.chain) == 2
            // SAFETY: attached; the object is alive.
            && unsafe { ffi::Py_REFCNT(room.context.as_ptr()) } == 1
            && map_of(&room.context) == room.map
        {
            let before = self
                .desk
                .get()
                .ready
                .swap(Box::into_raw(room), Ordering::AcqRel);
            if !before.is_null() {
                // SAFETY: the pointer came from `Box::into_raw`, and the swap made it ours.
                drop(unsafe { Box::from_raw(before) });
            }
        }
    }
}

/// The only object a context refers to, and how many refer to that; `None` where it is not the only one.
fn map_of(context: &Py<PyAny>) -> Option<(usize, ffi::Py_ssize_t)> {
    struct Seen {
        count: usize,
        last: *mut ffi::PyObject,
    }
    unsafe extern "C" fn visit(object: *mut ffi::PyObject, seen: *mut c_void) -> c_int {
        // SAFETY: `seen` is the place given to the traversal below, and nobody else uses it meanwhile.
        let seen = unsafe { &mut *seen.cast::<Seen>() };
        seen.count += 1;
        seen.last = object;
        0
    }
    let mut seen = Seen {
        count: 0,
        last: null_mut(),
    };
    let context = context.as_ptr();
    // SAFETY: attached (the caller runs a handler); the object is alive, and traversing it as the collector
    // does runs nothing but `visit`.
    unsafe {
        let traverse = (*ffi::Py_TYPE(context)).tp_traverse?;
        traverse(context, visit, (&raw mut seen).cast());
    }
    if seen.count != 1 {
        return None;
    }
    // SAFETY: what was visited is no null pointer, and the context keeps it alive.
    Some((seen.last as usize, unsafe { ffi::Py_REFCNT(seen.last) }))
}

#[pymethods]
impl Desk {
    #[new]
    fn new(py: Python<'_>) -> PyResult<Self> {
        // SAFETY: attached; the result is owned or an error is set.
        let context = unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyContext_New())? };
        Ok(Self {
            context: Mutex::new(context.unbind()),
            set_up_in: AtomicU64::new(0),
            ready: AtomicPtr::new(null_mut()),
        })
    }

    /// What every run begins with a copy of.
    #[getter]
    fn context(&self, py: Python<'_>) -> Py<PyAny> {
        self.filled().clone_ref(py)
    }

    /// Whether `setup` has run, here or, without one, never needs to.
    #[getter]
    fn is_set_up(&self) -> bool {
        self.is_ready()
    }

    /// Notes that `setup` has run, and in which context.
    fn set_up(&self, context: Py<PyAny>) {
        let before = std::mem::replace(&mut *self.filled(), context);
        drop(before);
        // What was made ready knows nothing of what `setup` has set.
        let before = self.ready.swap(null_mut(), Ordering::AcqRel);
        if !before.is_null() {
            // SAFETY: the pointer came from `Box::into_raw`, and the swap made it ours.
            drop(unsafe { Box::from_raw(before) });
        }
        self.set_up_in.store(epoch() + 1, Ordering::Release);
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), pyo3::PyTraverseError> {
        visit.call(&*self.filled())?;
        let ready = self.ready.load(Ordering::Acquire);
        if !ready.is_null() {
            // SAFETY: only touched attached, and the collector runs attached: nobody takes it meanwhile.
            visit.call(unsafe { &(*ready).context })?;
        }
        Ok(())
    }
}
