//! A step allocates nothing: all memory is planned, and taken before the first step of its size ends.
mod common;

use common::{Expected, engine, fixture};
use ds4_ir::Class;
use ds4_runtime::{Session, Want};
use std::alloc::{GlobalAlloc, Layout, System};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

/// The system's allocator, counted over all threads.
struct Counting;

static COUNT: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.fetch_add(1, SeqCst);
        // SAFETY: the caller keeps the contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Lengths of steps: one for each bucket that the fixtures' contexts allow, and of both parities.
const STEPS: [usize; 6] = [1, 1, 7, 33, 130, 1];

/// Runs one step.
fn step(session: &mut Session, ids: &[u32], want: Want, logits: &mut Vec<f32>) {
    logits.clear();
    let none = AtomicBool::new(false);
    session.advance_into(ids, want, 512, &none, &mut |_| (), logits).unwrap();
}

/// Allocations of the steps that follow a first round of steps of the same lengths.
fn allocations(model: &Path, ids: &[u32], class: Class) -> usize {
    let engine = engine(model, class, 2);
    let mut session = engine.session().unwrap();
    let vocab = engine.module().vocab as usize;
    let mut logits = Vec::with_capacity(STEPS.iter().max().unwrap() * vocab);
    let mut before = 0;
    for round in 0..2 {
        session.reset();
        before = COUNT.load(SeqCst);
        let mut at = 0;
        for (i, n) in STEPS.into_iter().enumerate() {
            let want = if i % 2 == 0 { Want::All } else { Want::Last };
            step(&mut session, &ids[at..at + n], want, &mut logits);
            at += n;
        }
        assert!(round > 0 || COUNT.load(SeqCst) > before, "the first steps take memory");
    }
    COUNT.load(SeqCst) - before
}

#[test]
fn no_step_allocates() {
    let demo = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("models/demo");
    let text: Vec<u32> = (0..200).map(|i| 3 + i * 7 % 200).collect();
    let mut models = vec![(demo, text)];
    for name in ["flash-bf16", "pro-mixed"] {
        let ids = Expected::read(&fixture(name).join("expected.safetensors")).ids("input_ids");
        models.push((fixture(name), ids));
    }
    for (model, ids) in models {
        for class in [Class::Exact, Class::Official, Class::Fast] {
            let made = allocations(&model, &ids, class);
            assert_eq!(made, 0, "{} {class}", model.display());
        }
    }
}
