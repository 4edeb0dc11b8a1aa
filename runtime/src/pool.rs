//! The threads of an engine: one parallel job at a time.
//!
//! Each thread takes the tasks of its own span in order, then what others have left: neighbouring tasks
//! read neighbouring memory, and a thread that goes on where it was finds what it has asked for ahead.
//! The calling thread works too, and goes on as soon as all tasks are done: a thread that comes too
//! late is not waited for. Waiting is a short bounded spin, then sleep, so that a busy machine gives
//! its cores to whoever has work. Running a job allocates nothing. A task that panics ends its job;
//! the panic goes on in the caller, and the pool stays usable.
use crate::memory::Memory;
use std::any::Any;
use std::cell::UnsafeCell;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

/// How long a thread without work looks for some before it sleeps. Longer than the serial work
/// between two jobs of a step, far shorter than a scheduler's time slice.
const SPIN: Duration = Duration::from_micros(40);
/// Looks at memory between two looks at the clock.
const LOOKS: u32 = 64;

/// A task's work: its number and the buffer of the thread that runs it.
type Task<'a> = dyn Fn(usize, &mut [u8]) + Sync + 'a;

/// Threads that share the tasks of a job.
pub(crate) struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// The calling thread's buffer; who holds it may run jobs.
    turn: Mutex<Memory>,
}

struct Shared {
    /// A span of the job's tasks for each thread, the caller's first.
    spans: Vec<Span>,
    /// Tasks of the job; set before any of them is open.
    tasks: AtomicUsize,
    done: AtomicUsize,
    job: UnsafeCell<Option<*const Task<'static>>>,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    panicked: AtomicBool,
    stop: AtomicBool,
    sleepers: Vec<Sleeper>,
    /// Whether the caller sleeps until the last task is done.
    waiting: AtomicBool,
    finished: Mutex<()>,
    wake: Condvar,
}

/// Open tasks: the one after the last in the upper half, the next one in the lower. Who takes a task by
/// a compare-exchange of this word owns it, and the job does not change before the task is done.
#[derive(Default)]
#[repr(align(64))]
struct Span(AtomicU64);

impl Span {
    fn open(&self, tasks: Range<usize>) {
        let word = |n: usize| u64::from(u32::try_from(n).expect("fewer than 2^32 tasks"));
        self.0.store(word(tasks.end) << 32 | word(tasks.start), SeqCst);
    }

    fn has_work(&self) -> bool {
        Span::next(self.0.load(SeqCst)).is_some()
    }

    fn next(word: u64) -> Option<usize> {
        let (next, end) = (word & u64::from(u32::MAX), word >> 32);
        (next < end).then_some(next as usize)
    }

    fn take(&self) -> Option<usize> {
        let mut word = self.0.load(SeqCst);
        loop {
            let task = Span::next(word)?;
            match self.0.compare_exchange_weak(word, word + 1, SeqCst, SeqCst) {
                Ok(_) => return Some(task),
                Err(now) => word = now,
            }
        }
    }
}

/// A worker that may sleep.
#[derive(Default)]
struct Sleeper {
    asleep: AtomicBool,
    thread: std::sync::OnceLock<Thread>,
}

// SAFETY: `job` is written by the caller while no task is open, and read by threads that own a task of
// the job; its span orders the two. Everything else is synchronized by itself.
unsafe impl Sync for Shared {}
// SAFETY: the pointer in `job` is used as said above, from whichever thread.
unsafe impl Send for Shared {}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What the mutexes of a pool guard is whole at any time.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Number of threads that this process may use at once.
pub(crate) fn cores() -> usize {
    thread::available_parallelism().map_or(1, |n| n.get())
}

impl Pool {
    /// A pool of `threads` threads, the caller among them, each with a buffer of `bytes` bytes.
    ///
    /// # Errors
    /// The system has no more threads or no memory.
    pub(crate) fn new(threads: usize, bytes: usize) -> Result<Pool, String> {
        assert!(threads > 0, "a pool has a thread");
        let buffer = || {
            Memory::new(bytes as u64).ok_or_else(|| format!("threads: no memory for {bytes} bytes for each"))
        };
        let shared = Arc::new(Shared {
            spans: (0..threads).map(|_| Span::default()).collect(),
            tasks: AtomicUsize::new(0),
            done: AtomicUsize::new(0),
            job: UnsafeCell::new(None),
            panic: Mutex::new(None),
            panicked: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            sleepers: (1..threads).map(|_| Sleeper::default()).collect(),
            waiting: AtomicBool::new(false),
            finished: Mutex::new(()),
            wake: Condvar::new(),
        });
        let mut pool = Pool { shared: shared.clone(), workers: Vec::new(), turn: Mutex::new(buffer()?) };
        for index in 0..threads - 1 {
            let (shared, mut buffer) = (shared.clone(), buffer()?);
            let thread = thread::Builder::new().name(format!("ds4-{}", index + 1));
            let worker = thread.spawn(move || work(&shared, index, buffer.bytes_mut()));
            // A pool that is dropped here stops the threads that it has.
            pool.workers.push(worker.map_err(|e| format!("threads: {e}"))?);
        }
        Ok(pool)
    }

    /// Number of threads, the caller's included.
    pub(crate) fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Waits until no one else runs jobs, and takes the right to.
    pub(crate) fn turn(&self) -> Turn<'_> {
        Turn { shared: &self.shared, buffer: lock(&self.turn) }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, SeqCst);
        self.shared.wake(usize::MAX);
        for worker in self.workers.drain(..) {
            // Workers catch the panics of tasks.
            worker.join().expect("a worker ends by itself");
        }
    }
}

/// The right to run jobs.
pub(crate) struct Turn<'a> {
    shared: &'a Shared,
    buffer: MutexGuard<'a, Memory>,
}

impl Turn<'_> {
    /// Number of threads, the caller's included.
    pub(crate) fn threads(&self) -> usize {
        self.shared.sleepers.len() + 1
    }

    /// Runs `task` for each of `0..tasks`, in any order, on any thread, and returns when all are done.
    ///
    /// # Panics
    /// With a task's panic; tasks that had not begun then are left out.
    pub(crate) fn run(&mut self, tasks: usize, task: &Task<'_>) {
        let shared = self.shared;
        if tasks <= 1 || shared.sleepers.is_empty() {
            return (0..tasks).for_each(|i| task(i, self.buffer.bytes_mut()));
        }
        shared.done.store(0, SeqCst);
        // SAFETY: only the lifetime changes. The pointer is used by threads that own a task of this
        // job, and this function returns after the last of them is done.
        let task = unsafe { std::mem::transmute::<*const Task<'_>, *const Task<'static>>(task) };
        // SAFETY: no task is open, so no other thread looks at `job`.
        unsafe { *shared.job.get() = Some(task) };
        shared.tasks.store(tasks, SeqCst);
        let threads = shared.spans.len();
        for (i, span) in shared.spans.iter().enumerate() {
            span.open(i * tasks / threads..(i + 1) * tasks / threads);
        }
        shared.wake(tasks - 1);
        shared.work(0, self.buffer.bytes_mut());
        shared.wait(tasks);
        if shared.panicked.swap(false, SeqCst) {
            let panic = lock(&shared.panic).take();
            resume_unwind(panic.expect("who panicked left a payload"));
        }
    }
}

impl Shared {
    fn has_work(&self) -> bool {
        self.spans.iter().any(Span::has_work)
    }

    /// Runs tasks of span `own`, then of others, until none is open.
    fn work(&self, own: usize, buffer: &mut [u8]) {
        let (others, first) = self.spans.split_at(own);
        let mut ran = 0;
        while let Some(index) = first.iter().chain(others).find_map(Span::take) {
            ran += 1;
            // SAFETY: this thread owns a task that is not counted as done, so the job is the one that was
            // set before the span was opened and is not set again.
            let task = unsafe { &*(*self.job.get()).expect("a job with tasks is set") };
            if !self.panicked.load(SeqCst) {
                let result = catch_unwind(AssertUnwindSafe(|| task(index, buffer)));
                if let Err(payload) = result {
                    lock(&self.panic).get_or_insert(payload);
                    self.panicked.store(true, SeqCst);
                }
            }
        }
        // Counted once and not task by task: all threads write this.
        if ran > 0 {
            let tasks = self.tasks.load(SeqCst);
            if self.done.fetch_add(ran, SeqCst) + ran == tasks && self.waiting.load(SeqCst) {
                drop(lock(&self.finished));
                self.wake.notify_one();
            }
        }
    }

    /// Waits until `tasks` tasks are done.
    fn wait(&self, tasks: usize) {
        let done = || self.done.load(SeqCst) == tasks;
        if spin(done) {
            return;
        }
        self.waiting.store(true, SeqCst);
        let mut guard = lock(&self.finished);
        while !done() {
            guard = self.wake.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        self.waiting.store(false, SeqCst);
    }

    /// Wakes up to `n` workers that sleep.
    fn wake(&self, mut n: usize) {
        for sleeper in &self.sleepers {
            if n == 0 {
                return;
            }
            n -= 1;
            if sleeper.asleep.load(SeqCst)
                && sleeper.asleep.swap(false, SeqCst)
                && let Some(thread) = sleeper.thread.get()
            {
                thread.unpark();
            }
        }
    }
}

/// Looks for a while whether `ready`; says whether it was seen.
fn spin(ready: impl Fn() -> bool) -> bool {
    if ready() {
        return true;
    }
    let start = Instant::now();
    while start.elapsed() < SPIN {
        for _ in 0..LOOKS {
            if ready() {
                return true;
            }
            std::hint::spin_loop();
        }
    }
    false
}

/// What a worker does until the pool is dropped.
fn work(shared: &Shared, index: usize, buffer: &mut [u8]) {
    let sleeper = &shared.sleepers[index];
    sleeper.thread.get_or_init(thread::current);
    let ready = || shared.has_work() || shared.stop.load(SeqCst);
    while !shared.stop.load(SeqCst) {
        shared.work(index + 1, buffer);
        if spin(ready) {
            continue;
        }
        // Whoever makes work after this store sees it; what was made before is seen here.
        sleeper.asleep.store(true, SeqCst);
        while sleeper.asleep.load(SeqCst) && !ready() {
            thread::park();
        }
        sleeper.asleep.store(false, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(pool: &Pool, tasks: usize) -> u64 {
        let all = AtomicU64::new(0);
        pool.turn().run(tasks, &|i, _| {
            all.fetch_add(i as u64 + 1, SeqCst);
        });
        all.into_inner()
    }

    #[test]
    fn every_task_runs_once() {
        for threads in [1, 2, 3, 8] {
            let pool = Pool::new(threads, 64).unwrap();
            assert_eq!(pool.threads(), threads);
            for tasks in (0..200).chain([10_000]) {
                assert_eq!(sum(&pool, tasks), (tasks as u64) * (tasks as u64 + 1) / 2);
            }
        }
    }

    #[test]
    fn threads_wake_after_a_sleep() {
        let pool = Pool::new(3, 0).unwrap();
        for _ in 0..5 {
            thread::sleep(Duration::from_millis(2));
            assert_eq!(sum(&pool, 100), 5050);
        }
    }

    #[test]
    fn a_job_waits_for_a_slow_task_of_another_thread() {
        let pool = Pool::new(2, 0).unwrap();
        let slow = AtomicUsize::new(0);
        pool.turn().run(2, &|_, _| {
            thread::sleep(Duration::from_millis(5));
            slow.fetch_add(1, SeqCst);
        });
        assert_eq!(slow.into_inner(), 2);
    }

    #[test]
    fn tasks_have_a_buffer_of_their_thread() {
        let pool = Pool::new(4, 1024).unwrap();
        let mixed = AtomicBool::new(false);
        pool.turn().run(500, &|i, buffer| {
            assert!(buffer.len() >= 1024);
            buffer.fill(i as u8);
            thread::yield_now();
            mixed.fetch_or(buffer.iter().any(|b| *b != i as u8), SeqCst);
        });
        assert!(!mixed.into_inner());
    }

    #[test]
    fn a_panic_reaches_the_caller_and_leaves_the_pool_usable() {
        for threads in [1, 3] {
            let pool = Pool::new(threads, 0).unwrap();
            for bad in [0, 7, 99] {
                let ran = catch_unwind(AssertUnwindSafe(|| {
                    pool.turn().run(100, &|i, _| assert!(i != bad, "task {i}"));
                }));
                let payload = ran.expect_err("a task panics");
                assert_eq!(payload.downcast_ref::<String>(), Some(&format!("task {bad}")));
                assert_eq!(sum(&pool, 10), 55);
            }
        }
    }

    #[test]
    fn callers_take_turns() {
        let pool = Pool::new(2, 0).unwrap();
        thread::scope(|s| {
            for _ in 0..4 {
                s.spawn(|| (0..100).for_each(|_| assert_eq!(sum(&pool, 50), 1275)));
            }
        });
    }
}
