//! Running a batch right where a loop has pulled it: the handler is called, and an `async def` handler taken
//! through its first step, without a Python frame of ours in between.
//!
//! That first step is taken in the name of a task that nobody has made yet (`carpool._handler.step` says how).
//! What cannot go this way (a `context=`, a `setup` still to come, a loop with a task factory, CPython 3.10,
//! asyncio without its C part) goes through the handler's `run_on_loop`.

use std::cell::Cell;
use std::ptr::null_mut;

use crate::guard::intern;
use pyo3::exceptions::PyRuntimeError;
use pyo3::ffi;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyTuple;

use crate::batch::Batch;
use crate::guard;
use crate::run;

/// A handler that may be called directly.
pub(crate) struct Direct {
    handler: Py<PyAny>,
    function: Py<PyAny>,
    /// The instance of a method.
    bound: Option<Py<PyAny>>,
    is_async: bool,
    /// The context of which each batch gets a copy.
    context: Py<PyAny>,
}

impl Direct {
    /// None: it must not.
    pub(crate) fn of(
        handler: &Bound<'_, PyAny>,
        bound: &Bound<'_, PyTuple>,
    ) -> PyResult<Option<Self>> {
        let wants = |name| Ok::<_, PyErr>(!handler.getattr(name)?.is_none());
        if bound.len() > 1
            || wants("context")?
            || wants("setup")?
            || handler.getattr("recovers")?.extract()?
        {
            return Ok(None);
        }
        Ok(Some(Self {
            handler: handler.clone().unbind(),
            function: handler.getattr("function")?.unbind(),
            bound: bound.iter().next().map(Bound::unbind),
            is_async: handler.getattr("is_async")?.extract()?,
            context: handler.getattr("desk")?.getattr("context")?.unbind(),
        }))
    }

    pub(crate) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), pyo3::PyTraverseError> {
        visit.call(&self.handler)?;
        visit.call(&self.function)?;
        visit.call(&self.bound)?;
        visit.call(&self.context)
    }

    fn call<'py>(&self, py: Python<'py>, items: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let function = self.function.bind(py);
        match &self.bound {
            Some(instance) => function.call1((instance, items)),
            None => function.call1((items,)),
        }
    }

    /// Runs the batch on the running loop. False: it cannot, and has done nothing.
    pub(crate) fn run(
        &self,
        batch: &Bound<'_, Batch>,
        event_loop: &Bound<'_, PyAny>,
    ) -> PyResult<bool> {
        let py = batch.py();
        let kind = if self.is_async {
            match Kind::of(py)? {
                Some(kind) if !has_factory(event_loop) => Some(kind),
                _ => return Ok(false),
            }
        } else {
            None
        };
        let items = batch.get().items(py)?.into_bound(py).into_any();
        let own = Own::copy(self.context.bind(py))?;
        let first = match kind {
            None => {
                let inside = own.enter(batch)?;
                let called = self.call(py, items);
                drop(inside);
                called.map_or_else(First::Failed, First::Ended)
            }
            Some(kind) => {
                let now = Now {
                    handler: self.handler.bind(py),
                    batch,
                    context: &own.0,
                    event_loop,
                };
                let Some(first) = now.step(kind, &own, || self.call(py, items))? else {
                    return Ok(false);
                };
                first
            }
        };
        match first {
            First::Ended(results) => {
                // What is wrong with them the callers know by then.
                drop(batch.get().complete(py, &results));
            }
            First::Failed(error) => {
                let error = error.into_value(py).into_any();
                batch.get().fail_by_handler(py, &error);
            }
            First::Suspended => {}
        }
        Ok(true)
    }
}

/// Whether tasks of this loop are made by something of the user's.
fn has_factory(event_loop: &Bound<'_, PyAny>) -> bool {
    let factory = event_loop.call_method0(intern!(event_loop.py(), "get_task_factory"));
    !factory.is_ok_and(|factory| factory.is_none())
}

/// What became of the first step.
enum First<'py> {
    Ended(Bound<'py, PyAny>),
    Failed(PyErr),
    /// A task goes on with the handler.
    Suspended,
}

/// A context for one run of the handler.
struct Own<'py>(Bound<'py, PyAny>);

impl<'py> Own<'py> {
    fn copy(of: &Bound<'py, PyAny>) -> PyResult<Self> {
        // SAFETY: attached; `of` is a context, as `Desk` makes it; the result is owned, or an error is set.
        unsafe {
            let copy = ffi::PyContext_Copy(of.as_ptr());
            Bound::from_owned_ptr_or_err(of.py(), copy).map(Self)
        }
    }

    /// Enters the context, and says there which run this is.
    fn enter(&self, batch: &Bound<'py, Batch>) -> PyResult<Inside<'_, 'py>> {
        let py = batch.py();
        let run = Py::new(py, batch.get().run())?;
        let variable = run::variable(py)?;
        // SAFETY: attached; these are a context and a context variable; the token is owned.
        unsafe {
            if ffi::PyContext_Enter(self.0.as_ptr()) < 0 {
                return Err(PyErr::fetch(py));
            }
            let inside = Inside(self);
            let token = ffi::PyContextVar_Set(variable.as_ptr(), run.as_ptr());
            Bound::from_owned_ptr_or_err(py, token)?;
            Ok(inside)
        }
    }
}

/// While it lives, the context is entered.
struct Inside<'a, 'py>(&'a Own<'py>);

impl Drop for Inside<'_, '_> {
    fn drop(&mut self) {
        let py = self.0.0.py();
        // SAFETY: attached; the context was entered when this was made, and no error is set: errors of what
        // ran inside have been fetched.
        if unsafe { ffi::PyContext_Exit(self.0.0.as_ptr()) } < 0 {
            PyErr::fetch(py).write_unraisable(py, None);
        }
    }
}

/// What it takes to make a handler's task at need.
struct Kind {
    class: Py<PyAny>,
    enter: Py<PyAny>,
    leave: Py<PyAny>,
    go_on: Py<PyAny>,
    over: Py<PyAny>,
    awaited: Py<PyAny>,
}

impl Kind {
    /// None where tasks are not asyncio's own in C, or cannot be given a context.
    fn of(py: Python<'_>) -> PyResult<Option<&Self>> {
        static KIND: PyOnceLock<Option<Kind>> = PyOnceLock::new();
        let kind = guard::once(&KIND, py, || {
            if !cfg!(Py_3_11) {
                return Ok(None);
            }
            let tasks = py.import("asyncio.tasks")?;
            let native = py
                .import("_asyncio")
                .and_then(|native| native.getattr("Task"));
            if !native.is_ok_and(|native| tasks.getattr("Task").is_ok_and(|task| task.is(&native)))
            {
                return Ok(None);
            }
            let own = py.import("carpool._handler.step")?;
            let get = |of: &Bound<'_, PyModule>, name| of.getattr(name).map(Bound::unbind);
            Ok::<_, PyErr>(Some(Self {
                class: get(&own, "HandlerTask")?,
                enter: get(&tasks, "_enter_task")?,
                leave: get(&tasks, "_leave_task")?,
                go_on: get(&own, "go_on")?,
                over: get(&own, "over")?,
                awaited: get(&own, "awaited")?,
            }))
        })?;
        Ok(kind.as_ref())
    }

    /// A task without its `__init__`.
    fn shell<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        // SAFETY: attached; the class is a heap type that is alive, of objects that may be zeroed: that is
        // what its own `__new__` makes of them.
        unsafe {
            let class = self.class.as_ptr().cast();
            let made = ffi::PyType_GenericNew(class, null_mut(), null_mut());
            Bound::from_owned_ptr_or_err(py, made)
        }
    }
}

/// A first step under way in this thread.
struct Now<'a, 'py> {
    handler: &'a Bound<'py, PyAny>,
    batch: &'a Bound<'py, Batch>,
    context: &'a Bound<'py, PyAny>,
    event_loop: &'a Bound<'py, PyAny>,
}

thread_local! {
    /// The innermost [`Now`], borrowed from the stack.
    static NOW: Cell<*const Now<'static, 'static>> = const { Cell::new(std::ptr::null()) };
}

/// While it lives, a [`Now`] can be found.
struct Known<'a> {
    before: *const Now<'static, 'static>,
    _now: std::marker::PhantomData<&'a ()>,
}

impl Drop for Known<'_> {
    fn drop(&mut self) {
        NOW.set(self.before);
    }
}

impl<'py> Now<'_, 'py> {
    fn make_known(&self) -> Known<'_> {
        let this = std::ptr::from_ref(self).cast::<Now<'static, 'static>>();
        Known {
            before: NOW.replace(this),
            _now: std::marker::PhantomData,
        }
    }

    /// Calls the handler and takes what it returns through its first step. None: this thread is inside
    /// another task, and nothing was done.
    fn step(
        &self,
        kind: &Kind,
        own: &Own<'py>,
        call: impl FnOnce() -> PyResult<Bound<'py, PyAny>>,
    ) -> PyResult<Option<First<'py>>> {
        let py = self.batch.py();
        let task = kind.shell(py)?;
        let inside = own.enter(self.batch)?;
        if kind.enter.call1(py, (self.event_loop, &task)).is_err() {
            return Ok(None);
        }
        let known = self.make_known();
        let called = call();
        let (sent, coroutine) = match called.and_then(|returned| as_coroutine(kind, returned)) {
            Ok(coroutine) => (send(&coroutine), Some(coroutine)),
            Err(error) => (Sent::Raised(error), None),
        };
        if let Err(error) = kind.leave.call1(py, (self.event_loop, &task)) {
            error.write_unraisable(py, Some(self.event_loop));
        }
        drop(inside);
        let first = match (sent, coroutine) {
            (Sent::Yielded(yielded), Some(coroutine)) => {
                match kind.go_on.call1(py, (&task, coroutine, yielded)) {
                    Ok(_) => First::Suspended,
                    Err(error) => First::Failed(error),
                }
            }
            (Sent::Returned(results) | Sent::Yielded(results), _) => First::Ended(results),
            (Sent::Raised(error), _) => First::Failed(error),
        };
        // SAFETY: attached; the task is alive.
        let kept = unsafe { ffi::Py_REFCNT(task.as_ptr()) } > 1;
        if kept && !matches!(first, First::Suspended) {
            if let Err(error) = kind.over.call1(py, (&task,)) {
                error.write_unraisable(py, Some(&task));
            }
        }
        drop(known);
        Ok(Some(first))
    }
}

/// What a coroutine did.
enum Sent<'py> {
    Yielded(Bound<'py, PyAny>),
    Returned(Bound<'py, PyAny>),
    Raised(PyErr),
}

fn as_coroutine<'py>(kind: &Kind, returned: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: attached; the object is alive; the check looks at its type.
    if unsafe { ffi::PyCoro_CheckExact(returned.as_ptr()) } != 0 {
        return Ok(returned);
    }
    kind.awaited.bind(returned.py()).call1((returned,))
}

fn send<'py>(coroutine: &Bound<'py, PyAny>) -> Sent<'py> {
    let py = coroutine.py();
    let mut result = null_mut();
    // SAFETY: attached; a coroutine is an iterator that can be sent to; the result is owned where there is
    // one, and an error set where there is none.
    unsafe {
        match ffi::PyIter_Send(coroutine.as_ptr(), ffi::Py_None(), &raw mut result) {
            ffi::PySendResult::PYGEN_NEXT => Sent::Yielded(Bound::from_owned_ptr(py, result)),
            ffi::PySendResult::PYGEN_RETURN => Sent::Returned(Bound::from_owned_ptr(py, result)),
            ffi::PySendResult::PYGEN_ERROR => Sent::Raised(PyErr::fetch(py)),
        }
    }
}

/// The first step that this thread is taking: handler, batch, context and event loop.
#[pyfunction]
#[allow(
    clippy::type_complexity,
    reason = "one tuple, taken apart where it arrives"
)]
pub(crate) fn first_step(
    _py: Python<'_>,
) -> PyResult<(Py<PyAny>, Py<Batch>, Py<PyAny>, Py<PyAny>)> {
    let now = NOW.get();
    if now.is_null() {
        return Err(PyRuntimeError::new_err(
            "no handler is in its first step here",
        ));
    }
    // SAFETY: the pointer is there as long as the `Known` that put it there, which borrows the `Now`, on this
    // thread; attached throughout.
    let now = unsafe { &*now };
    Ok((
        now.handler.clone().unbind(),
        now.batch.clone().unbind(),
        now.context.clone().unbind(),
        now.event_loop.clone().unbind(),
    ))
}
