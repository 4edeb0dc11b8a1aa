//! Saving beside decoding: one thread writes captures, another keeps journals synced.
use super::save::{Capture, Saved};
use super::{Store, StoreError};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, TrySendError, channel, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// Captures that may wait. Each holds a copy of its rows in memory.
const WAITING: usize = 2;
/// Pause after each megabyte of a save while nobody waits for it: writing one takes some tenths of a
/// millisecond, in which all threads that compute wait for the one on the same core. So a save costs
/// decoding two or three hundredths of its time, and goes on at 60 MB/s.
const PAUSE: Duration = Duration::from_millis(16);
/// How often open journals are synced: with the time a sync takes, within the promised 5 s.
const SYNC_EVERY: Duration = Duration::from_secs(2);

/// Of the saving thread, where threads have a priority of their own: against a thread of the usual
/// priority it weighs 36 to 1024.
#[cfg(target_os = "linux")]
const NICE: libc::c_int = 15;

enum Job {
    Save(Capture, Sender<Result<Saved, StoreError>>),
    /// Says when all before it is done.
    Done(Sender<()>),
}

/// Writes what is handed to it. Dropping it finishes all saves and syncs all journals.
pub struct Writer {
    jobs: Option<SyncSender<Job>>,
    /// Closed to end the second thread.
    end: Option<Sender<()>>,
    /// Somebody waits for the saves.
    hurry: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// A save on its way.
pub struct Ticket(Receiver<Result<Saved, StoreError>>);

impl Ticket {
    /// Waits until the boundary is on the disk, or says why not.
    pub fn wait(self) -> Result<Saved, StoreError> {
        self.0.recv().unwrap_or(Err(StoreError::Stopped))
    }
}

impl Writer {
    /// Starts the threads. A failed save is a warning of the store as well as the ticket's result.
    pub fn start(store: Arc<Store>) -> std::io::Result<Writer> {
        let (jobs, queue) = sync_channel::<Job>(WAITING);
        let (end, ended) = channel();
        let saver = Arc::clone(&store);
        let hurry = Arc::new(AtomicBool::new(false));
        let hurried = Arc::clone(&hurry);
        let save = move || {
            step_back();
            let mut refused = false;
            for job in queue {
                let (capture, done) = match job {
                    Job::Save(capture, done) => (capture, done),
                    Job::Done(done) => {
                        let _ = done.send(()); // Nobody has to wait for it.
                        continue;
                    }
                };
                let pause = || {
                    if !hurried.load(Ordering::Relaxed) {
                        std::thread::sleep(PAUSE);
                    }
                };
                let result = saver.commit_with(&capture, &pause);
                // Those that extend a refused one cannot be saved either: that is told once.
                let again = refused
                    && matches!(result, Err(StoreError::Budget { .. } | StoreError::ParentGone { .. }));
                if let (Err(error), false) = (&result, again) {
                    saver.warn(format!("state at {} tokens not saved: {error}", capture.position()));
                }
                refused = again || matches!(result, Err(StoreError::Budget { .. }));
                drop(capture); // Done means that its memory is free, too.
                drop(done.send(result)); // Nobody has to wait for it.
            }
            // When entries were last used is written too; without it eviction knows a little less.
            drop(saver.locked(|_| Ok(())));
        };
        let sync = move || {
            while ended.recv_timeout(SYNC_EVERY) == Err(RecvTimeoutError::Timeout) {
                if let Err(error) = store.sync_sessions() {
                    store.warn(error.to_string());
                }
            }
            if let Err(error) = store.sync_sessions() {
                store.warn(error.to_string());
            }
        };
        let spawn = |name: &str| std::thread::Builder::new().name(name.into());
        let threads = vec![spawn("store save").spawn(save)?, spawn("store sync").spawn(sync)?];
        Ok(Writer { jobs: Some(jobs), end: Some(end), hurry, threads })
    }

    /// Queues a save; gives the capture back if too many wait already. A boundary that is skipped
    /// costs nothing but itself: the next one includes its entries.
    pub fn save(&self, capture: Capture) -> Result<Ticket, Capture> {
        let (done, result) = channel();
        match self.jobs.as_ref().expect("open until dropped").try_send(Job::Save(capture, done)) {
            Ok(()) => Ok(Ticket(result)),
            Err(
                TrySendError::Full(Job::Save(capture, _)) | TrySendError::Disconnected(Job::Save(capture, _)),
            ) => Err(capture),
            Err(_) => unreachable!("what was sent comes back"),
        }
    }

    /// Waits until all saves queued before are done, well or not.
    pub fn wait(&self) {
        let (done, when) = channel();
        self.hurry.store(true, Ordering::Relaxed);
        if self.jobs.as_ref().expect("open until dropped").send(Job::Done(done)).is_ok() {
            let _ = when.recv(); // A thread that is gone has nothing to do.
        }
        self.hurry.store(false, Ordering::Relaxed);
    }
}

/// Lets the threads that compute go first: beside them this one gets some hundredths of a core, on an
/// idle machine all it asks for.
fn step_back() {
    // SAFETY: changes this thread's own priority (on Linux, 0 names the calling thread) and touches no
    // memory. A refusal, as for a thread that gives way already, leaves it as it is.
    #[cfg(target_os = "linux")]
    unsafe {
        libc::setpriority(libc::PRIO_PROCESS, 0, NICE);
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.hurry.store(true, Ordering::Relaxed);
        drop((self.jobs.take(), self.end.take()));
        for thread in self.threads.drain(..) {
            drop(thread.join()); // A panic there was reported by the thread itself.
        }
    }
}
