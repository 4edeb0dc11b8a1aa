//! The pipeline: canonicalize, fuse, pack, schedule, plan, check.
use crate::{PlanError, Target, canonicalize, fuse, pack, plan, schedule};
use ds4_ir::plan::{Maxima, Plan};
use ds4_ir::{Func, Module};

/// A place of the pipeline at which a module can be looked at.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Phase {
    /// As the model's builders wrote it.
    Model,
    /// One node per value.
    Canonical,
    /// Fused ops chosen.
    Fused,
    /// Siblings grouped.
    Packed,
    /// Launches ordered.
    Scheduled,
    /// Every byte placed; the module is that of the phase before.
    Planned,
}

impl Phase {
    /// All phases by name.
    pub const ALL: [(&'static str, Phase); 6] = [
        ("model", Phase::Model),
        ("canonical", Phase::Canonical),
        ("fused", Phase::Fused),
        ("packed", Phase::Packed),
        ("scheduled", Phase::Scheduled),
        ("planned", Phase::Planned),
    ];
}

/// The tokens of the step that schedules are made for: where memory counts.
const SCHEDULE_TOKENS: u32 = 512;

/// Compiles a module for a target. `seen` is called with the module after every phase.
///
/// # Errors
/// A value that fits no memory.
pub fn optimize(
    module: &Module,
    target: Target,
    seen: &mut dyn FnMut(Phase, &Module),
) -> Result<(Module, Plan), PlanError> {
    let decode = Maxima::of(module, 1);
    let prefill = Maxima::of(module, SCHEDULE_TOKENS.min(module.ctx));
    let price = |site: &crate::Site<'_>| target.price(site, &decode);
    verified(Phase::Model, module);
    seen(Phase::Model, module);
    let canonical = map_funcs(module, canonicalize);
    verified(Phase::Canonical, &canonical);
    seen(Phase::Canonical, &canonical);
    let fused = map_funcs(&canonical, |f| fuse(f, &price));
    verified(Phase::Fused, &fused);
    seen(Phase::Fused, &fused);
    let packed = map_funcs(&fused, pack);
    verified(Phase::Packed, &packed);
    seen(Phase::Packed, &packed);
    let scheduled = map_funcs(&packed, |f| schedule(f, &prefill));
    verified(Phase::Scheduled, &scheduled);
    seen(Phase::Scheduled, &scheduled);
    let plan = plan(&scheduled, target)?;
    seen(Phase::Planned, &scheduled);
    Ok((scheduled, plan))
}

/// A module with a pass run on each of its functions.
pub fn map_funcs(module: &Module, pass: impl Fn(&Func) -> Func) -> Module {
    let funcs = module.funcs.iter().map(pass).collect();
    Module { funcs, ..module.clone() }
}

/// A pass that takes a good module and gives a bad one is our bug.
fn verified(phase: Phase, module: &Module) {
    if let Err(errors) = ds4_ir::verify_module(module) {
        panic!("the module is malformed after {phase:?}: {}", errors[0]);
    }
}
