//! Exact timers of an event loop: a `timerfd` that the loop reads from, made when a pump first waits.
//!
//! asyncio's own timers end on whole milliseconds, so a wait of two may take three. The kernel's are exact,
//! and a loop that watches the descriptor notices as soon as it sleeps. One descriptor serves all pumps of
//! a loop; who no longer waits is only forgotten, so that the timer is set at most once per wait, not per
//! batch: where nobody waits any more it rings once, for nothing, and rests.
//!
//! As with a [bell](crate::bell), the loop owns the [`Ear`] through `add_reader`, and what closes the loop
//! drops it, which closes the descriptor. Where there is no `timerfd`, or no `add_reader`, the loop's own
//! timers do.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};
use std::ptr::null_mut;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::guard::intern;
use carpool_core::{Clock, Nanos};
use pyo3::exceptions::PyException;
use pyo3::prelude::*;

use crate::clock::{self, PyClock};
use crate::guard::{Inside, insist};
use crate::port::Port;
use crate::pump::Pump;
use crate::shared::epoch;

/// One loop's timer, for one process.
pub(crate) struct Alarm {
    epoch: u64,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// None where the loop cannot watch it, and once the loop has closed.
    timer: Option<File>,
    /// When it rings, on the machine's clock; `None` while it rests.
    set: Option<Nanos>,
    waiting: Vec<(Nanos, Py<Pump>)>,
}

impl Inner {
    fn earliest(&self) -> Option<Nanos> {
        self.waiting.iter().map(|&(at, _)| at).min()
    }

    /// Has it ring at `at` of the machine's clock.
    fn ring_at(&mut self, at: Nanos) -> io::Result<()> {
        let Some(timer) = &self.timer else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        let value = libc::timespec {
            tv_sec: (at / 1_000_000_000) as libc::time_t,
            // Nothing would unset it.
            tv_nsec: (at % 1_000_000_000).max(1) as libc::c_long,
        };
        let setting = libc::itimerspec {
            it_interval: libc::timespec {
                tv_sec: 0,
                tv_nsec: 0,
            },
            it_value: value,
        };
        // SAFETY: the descriptor is open; the setting is read, the old one not asked for.
        let failed = unsafe {
            libc::timerfd_settime(
                timer.as_raw_fd(),
                libc::TFD_TIMER_ABSTIME,
                &raw const setting,
                null_mut(),
            )
        };
        if failed < 0 {
            return Err(io::Error::last_os_error());
        }
        self.set = Some(at);
        Ok(())
    }
}

impl Alarm {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The timer of the running loop behind `port`; one that serves nobody where it cannot be had.
    pub(crate) fn of(port: &Bound<'_, Port>) -> PyResult<Arc<Self>> {
        if let Some(known) = port.get().alarm() {
            if known.epoch == epoch() {
                return Ok(known);
            }
        }
        let alarm = Self::hang(port)?;
        port.get().set_alarm(alarm.clone());
        Ok(alarm)
    }

    fn hang(port: &Bound<'_, Port>) -> PyResult<Arc<Self>> {
        let py = port.py();
        let alarm = Arc::new(Self {
            epoch: epoch(),
            inner: Mutex::default(),
        });
        let (Some(event_loop), Ok(timer)) = (port.get().event_loop(py), new_timer()) else {
            return Ok(alarm);
        };
        let descriptor = timer.as_raw_fd();
        alarm.inner().timer = Some(timer);
        let ear = Py::new(
            py,
            Ear {
                alarm: alarm.clone(),
            },
        )?;
        // In an empty context: the loop would keep the caller's for ever.
        let context = py.import("contextvars")?.getattr("Context")?.call0()?;
        let add = event_loop.getattr(intern!(py, "add_reader"))?;
        let added = insist(py, || {
            context.call_method1(intern!(py, "run"), (&add, descriptor, &ear))
        });
        match added {
            Ok(_) => Ok(alarm),
            Err(error) if error.is_instance_of::<PyException>(py) => {
                alarm.inner().timer = None;
                Ok(alarm)
            }
            Err(error) => Err(error),
        }
    }

    /// Has the loop call `pump` at `at`; False where it cannot.
    pub(crate) fn set(&self, at: Nanos, pump: &Bound<'_, Pump>) -> bool {
        let mut inner = self.inner();
        if inner.timer.is_none() {
            return false;
        }
        let rings = clock::on_machine(at);
        let late = inner.set.is_none_or(|set| rings < set);
        if late && inner.ring_at(rings).is_err() {
            return false;
        }
        inner.waiting.push((at, pump.clone().unbind()));
        true
    }

    /// `pump` waits no more.
    pub(crate) fn forget(&self, pump: &Bound<'_, Pump>) {
        let mut inner = self.inner();
        let place = inner.waiting.iter().position(|(_, one)| one.is(pump));
        let gone = place.map(|place| inner.waiting.swap_remove(place));
        drop(inner);
        drop(gone);
    }

    /// Those whose moment has come; sets the timer for the next.
    fn due(&self) -> Vec<Py<Pump>> {
        use std::io::Read;
        let mut inner = self.inner();
        if let Some(timer) = &inner.timer {
            let mut rung = [0; 8];
            drop((&*timer).read(&mut rung));
        }
        inner.set = None;
        let now = PyClock.now();
        let (due, waiting): (Vec<_>, Vec<_>) = std::mem::take(&mut inner.waiting)
            .into_iter()
            .partition(|&(at, _)| at <= now);
        inner.waiting = waiting;
        if let Some(next) = inner.earliest() {
            drop(inner.ring_at(clock::on_machine(next)));
        }
        due.into_iter().map(|(_, pump)| pump).collect()
    }
}

fn new_timer() -> io::Result<File> {
    // SAFETY: makes a descriptor, or fails.
    let descriptor = unsafe {
        libc::timerfd_create(
            libc::CLOCK_MONOTONIC,
            libc::TFD_NONBLOCK | libc::TFD_CLOEXEC,
        )
    };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was made just above and belongs to nobody else.
    Ok(unsafe { File::from_raw_fd(descriptor) })
}

/// What the loop calls when the timer rings.
#[pyclass(frozen, module = "carpool._core")]
pub(crate) struct Ear {
    alarm: Arc<Alarm>,
}

#[pymethods]
impl Ear {
    fn __call__(&self, py: Python<'_>) -> PyResult<()> {
        let _inside = Inside::go_on();
        let mut result = Ok(());
        for pump in self.alarm.due() {
            // Each has its turn, whatever another's handler raises.
            result = result.and(Pump::pull(pump.bind(py)));
        }
        result
    }

    fn __repr__(&self) -> &'static str {
        "<carpool timer>"
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        let mut inner = self.alarm.inner();
        let timer = inner.timer.take();
        let waiting = std::mem::take(&mut inner.waiting);
        drop(inner);
        drop((timer, waiting));
    }
}
