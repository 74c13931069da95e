//! Waking an event loop from a thread that never comes near the interpreter: a descriptor that the loop
//! reads from, hung up when a loop first needs it.
//!
//! The loop owns an [`Ear`] through `add_reader`; what closes the loop drops the ear, which closes the
//! descriptor. Whoever rings writes to it under the bell's lock, so it cannot be closed, and its number
//! given to another, in between. The lock is never held across Python code. A loop without
//! `add_reader`, or one that has closed, has nothing to ring: the caller of [`Bell::ring`] gets back what
//! it wanted to tell.

use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::guard::intern;
use carpool_core::request::Handle;
use pyo3::exceptions::PyException;
use pyo3::prelude::*;

use crate::border::PyBorder;
use crate::errands::{self, Errand};
use crate::guard::{Inside, insist};
use crate::overdue;
use crate::port::Port;
use crate::shared::epoch;

/// One loop's bell, for one process.
pub(crate) struct Bell {
    epoch: u64,
    /// The loop cannot be rung at all.
    mute: bool,
    inner: Mutex<Inner>,
}

struct Inner {
    cord: Option<Cord>,
    told: Vec<Handle<PyBorder>>,
    rung: bool,
    /// It was rung for the port's own flush.
    flush: bool,
}

impl Bell {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bell of the running loop behind `port`.
    pub(crate) fn of(port: &Bound<'_, Port>) -> PyResult<Arc<Self>> {
        if let Some(known) = port.get().bell() {
            if known.epoch == epoch() && (known.mute || known.inner().cord.is_some()) {
                return Ok(known);
            }
        }
        let bell = Self::hang(port)?;
        port.get().set_bell(bell.clone());
        Ok(bell)
    }

    fn hang(port: &Bound<'_, Port>) -> PyResult<Arc<Self>> {
        let py = port.py();
        let Some(event_loop) = port.get().event_loop(py) else {
            return Ok(Self::new(None));
        };
        let Ok((cord, descriptor)) = Cord::new() else {
            return Ok(Self::new(None));
        };
        let bell = Self::new(Some(cord));
        let ear = Py::new(
            py,
            Ear {
                bell: bell.clone(),
                port: port.clone().unbind(),
            },
        )?;
        // In an empty context: the loop would keep the caller's for ever.
        let context = py.import("contextvars")?.getattr("Context")?.call0()?;
        let add = event_loop.getattr(intern!(py, "add_reader"))?;
        let added = insist(py, || {
            context.call_method1(intern!(py, "run"), (&add, descriptor, &ear))
        });
        match added {
            Ok(_) => Ok(bell),
            // Not every loop can (asyncio's own on Windows).
            Err(error) if error.is_instance_of::<PyException>(py) => Ok(Self::new(None)),
            Err(error) => Err(error),
        }
    }

    fn new(cord: Option<Cord>) -> Arc<Self> {
        Arc::new(Self {
            epoch: epoch(),
            mute: cord.is_none(),
            inner: Mutex::new(Inner {
                cord,
                told: Vec::new(),
                rung: false,
                flush: false,
            }),
        })
    }

    /// Has the loop tell the callers of `requests`, from any thread, attached or not. They come back from
    /// a loop that cannot be rung.
    pub(crate) fn ring(
        &self,
        mut requests: Vec<Handle<PyBorder>>,
    ) -> Result<(), Vec<Handle<PyBorder>>> {
        let mut inner = self.inner();
        let Inner {
            cord, told, rung, ..
        } = &mut *inner;
        let Some(cord) = cord else {
            return Err(requests);
        };
        // Rung already: whoever hears that finds these too.
        if !*rung && cord.pull().is_err() {
            return Err(requests);
        }
        *rung = true;
        told.append(&mut requests);
        Ok(())
    }

    /// Has the loop flush its port, which is owed that; from any thread of this process. False: it cannot be rung.
    ///
    /// The interpreter is kept meanwhile, which the loop's own way lets go of for as long as its thread then needs.
    pub(crate) fn ring_for_flush(&self) -> bool {
        let mut inner = self.inner();
        let Some(cord) = inner.cord.as_ref().filter(|_| self.epoch == epoch()) else {
            return false;
        };
        if !inner.rung && cord.pull().is_err() {
            return false;
        }
        inner.rung = true;
        inner.flush = true;
        true
    }

    /// Whom to tell, and whether to flush.
    fn answer(&self) -> (Vec<Handle<PyBorder>>, bool) {
        let mut inner = self.inner();
        if let Some(cord) = &inner.cord {
            cord.hear();
        }
        inner.rung = false;
        let flush = std::mem::take(&mut inner.flush);
        (std::mem::take(&mut inner.told), flush)
    }

    fn take_down(&self) {
        let mut inner = self.inner();
        let (cord, told) = (inner.cord.take(), std::mem::take(&mut inner.told));
        inner.flush = false;
        drop(inner);
        drop(cord);
        if !told.is_empty() && self.epoch == epoch() {
            errands::post(Errand::Tell(told));
        }
    }
}

/// What the loop calls when it was rung for.
#[pyclass(frozen, module = "carpool._core")]
pub(crate) struct Ear {
    bell: Arc<Bell>,
    port: Py<Port>,
}

#[pymethods]
impl Ear {
    fn __call__(&self, py: Python<'_>) -> PyResult<()> {
        let _inside = Inside::go_on();
        let (requests, flush) = self.bell.answer();
        let port = self.port.bind(py);
        // Whom this makes ready it wakes itself, with all others.
        let held = port.get().hold();
        if !requests.is_empty() {
            overdue::tell_attached(py, &requests);
        }
        if held || flush {
            Port::flush(port)
        } else {
            Ok(())
        }
    }

    fn __repr__(&self) -> &'static str {
        "<carpool bell>"
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        self.bell.take_down();
    }
}

/// What is pulled at one end and heard at the other.
struct Cord {
    ear: File,
    /// Where the two ends have different descriptors.
    hand: Option<File>,
}

impl Cord {
    fn pull(&self) -> io::Result<()> {
        use std::io::Write;
        let mut hand = self.hand.as_ref().unwrap_or(&self.ear);
        hand.write_all(&1_u64.to_ne_bytes())
    }

    fn hear(&self) {
        use std::io::Read;
        // One pull at a time: a single read takes it. Without one there is nothing to read.
        let mut pulled = [0; 8];
        drop((&self.ear).read(&mut pulled));
    }

    #[cfg(target_os = "linux")]
    fn new() -> io::Result<(Self, i32)> {
        use std::os::fd::FromRawFd;
        // SAFETY: makes a descriptor, or fails.
        let descriptor = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was made just above and belongs to nobody else.
        let ear = unsafe { File::from_raw_fd(descriptor) };
        Ok((Self { ear, hand: None }, descriptor))
    }

    #[cfg(all(unix, not(target_os = "linux")))]
    fn new() -> io::Result<(Self, i32)> {
        use std::os::fd::{AsRawFd, OwnedFd};
        let (ear, hand) = io::pipe()?;
        let (ear, hand) = (OwnedFd::from(ear), OwnedFd::from(hand));
        for end in [&ear, &hand] {
            let end = end.as_raw_fd();
            // SAFETY: both descriptors are open and ours; the calls change their flags.
            let failed = unsafe {
                let flags = libc::fcntl(end, libc::F_GETFL);
                flags < 0 || libc::fcntl(end, libc::F_SETFL, flags | libc::O_NONBLOCK) < 0
            };
            if failed {
                return Err(io::Error::last_os_error());
            }
        }
        let descriptor = ear.as_raw_fd();
        let (ear, hand) = (ear.into(), Some(hand.into()));
        Ok((Self { ear, hand }, descriptor))
    }

    #[cfg(not(unix))]
    fn new() -> io::Result<(Self, i32)> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
