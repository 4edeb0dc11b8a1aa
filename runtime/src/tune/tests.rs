//! Planted kernels: a fast one that answers wrong is refused, a slow default is replaced.
use super::*;
use crate::cpu::product::Job;
use ds4_ir::formats::encode_row;

const ROWS: usize = 64;
const WIDTH: usize = 256;

fn site(columns: usize) -> Site {
    let (weight, input) = (Scalar::Q8_0, Scalar::Q8_0);
    Site { weight, packing: Packing::Stored, input, width: WIDTH, columns, weights: vec![] }
}

/// A matrix of small numbers.
fn matrix() -> Vec<u8> {
    let size = Scalar::Q8_0.row_bytes(WIDTH);
    let mut codes = vec![0; ROWS * size];
    for (r, row) in codes.chunks_exact_mut(size).enumerate() {
        let x: Vec<f32> = (0..WIDTH).map(|i| ((r * 31 + i * 7) % 19) as f32 - 9.0).collect();
        encode_row(Scalar::Q8_0, &x, row);
    }
    codes
}

fn view(codes: &[u8]) -> Matrix<'_> {
    Matrix { scalar: Scalar::Q8_0, rows: ROWS, width: WIDTH, codes, scales: &[] }
}

fn good() -> &'static ProductKernel {
    twin(Scalar::Q8_0, Scalar::Q8_0)
}

fn planted(name: &'static str, run: fn(&Job<'_>, &mut [u8])) -> &'static ProductKernel {
    Box::leak(Box::new(ProductKernel { name, run, ..*good() }))
}

fn slow(job: &Job<'_>, scratch: &mut [u8]) {
    std::thread::sleep(Duration::from_millis(2));
    (good().run)(job, scratch);
}

/// Right but for the last weight row of the last column.
fn nearly_right(job: &Job<'_>, scratch: &mut [u8]) {
    (good().run)(job, scratch);
    let column = job.columns[job.columns.len() - 1];
    // SAFETY: a cell of this job.
    unsafe { job.out.write(column.result as usize, job.rows.end - 1, &[0.0]) };
}

/// Faster than anything: it does nothing.
fn lazy(_: &Job<'_>, _: &mut [u8]) {}

fn decided(variants: &[&'static ProductKernel]) -> SiteRecord {
    let codes = matrix();
    let m = view(&codes);
    decide(&site(1), variants, &[m], &[m], 1, Duration::from_millis(20))
}

#[test]
fn a_fast_kernel_that_answers_wrong_is_refused() {
    for (name, run) in [("nearly", nearly_right as fn(&Job<'_>, &mut [u8])), ("lazy", lazy)] {
        let record = decided(&[good(), planted(name, run)]);
        assert_eq!(record.winner, kernel_name(good()));
        let refused = &record.kernels[1];
        assert!(refused.refused.as_ref().is_some_and(|why| why.contains("expected")), "{refused:?}");
        assert!(refused.femtoseconds.is_empty(), "{refused:?}");
        // Even as the default.
        assert_eq!(decided(&[planted(name, run), good()]).winner, kernel_name(good()));
        // And alone: then the definition is used.
        assert_eq!(decided(&[planted(name, run)]).winner, kernel_name(good()));
    }
}

#[test]
fn a_slow_default_is_replaced_and_a_good_one_stays() {
    let record = decided(&[planted("slow", slow), good()]);
    assert_eq!(record.winner, kernel_name(good()));
    assert!(record.kernels.iter().all(|s| s.femtoseconds.len() >= 3 && s.refused.is_none()), "{record:?}");
    assert_eq!(decided(&[good(), planted("slow", slow)]).winner, kernel_name(good()));
}

#[test]
fn the_least_sample_counts_and_noise_replaces_nothing() {
    let chosen = |all: &[(&str, &[u64], bool)]| {
        let samples = |(name, ps, refused): &(&str, &[u64], bool)| Samples {
            kernel: name.to_string(),
            femtoseconds: ps.to_vec(),
            refused: refused.then(|| "wrong".to_string()),
        };
        winner(&all.iter().map(samples).collect::<Vec<_>>())
    };
    let is = |name: &str| Some(name.to_string());
    assert_eq!(chosen(&[("a", &[9000, 5000], false), ("b", &[4800, 9900], false)]), is("b"));
    assert_eq!(chosen(&[("a", &[9000, 5000], false), ("b", &[4950, 4960], false)]), is("a"));
    assert_eq!(chosen(&[("a", &[], true), ("b", &[7000], false), ("c", &[6000], false)]), is("c"));
    assert_eq!(chosen(&[("a", &[5000], false), ("b", &[], true)]), is("a"));
    assert_eq!(chosen(&[("a", &[], true)]), None);
}

fn record(machine: MachineId, winner: &str) -> Record {
    let site = SiteRecord { site: site(1).key(), winner: winner.to_string(), kernels: vec![] };
    Record { machine, threads: 1, sites: vec![site] }
}

#[test]
fn winners_count_on_their_own_machine_only() {
    let key = (Scalar::Q8_0, Packing::Stored, Scalar::Q8_0);
    let chosen = |choices: &Choices, columns| choices.kernel(key.0, key.1, key.2, WIDTH, columns).unwrap();
    let name = |k: &ProductKernel| kernel_name(k);
    let default =
        kernels().find(|k| (k.weight, k.packing, k.input) == key && isas().contains(&k.isa)).unwrap();
    let here = Choices::of(Some(&record(MachineId::here(), &name(good()))));
    assert_eq!(*here.tuned(), Tuned::Here(1));
    assert_eq!(name(chosen(&here, 1)), name(good()));
    assert_eq!(name(chosen(&here, 64)), name(default));
    let other = MachineId { processor: "abacus".to_string(), ..MachineId::here() };
    let elsewhere = Choices::of(Some(&record(other, &name(good()))));
    assert_eq!(*elsewhere.tuned(), Tuned::Elsewhere("abacus".to_string()));
    assert_eq!(name(chosen(&elsewhere, 1)), name(default));
    // A winner that is no kernel of this build.
    let unknown = Choices::of(Some(&record(MachineId::here(), "scalar/unheard")));
    assert_eq!(name(chosen(&unknown, 1)), name(default));
    assert_eq!(*Choices::of(None).tuned(), Tuned::Never);
}

#[test]
fn records_of_one_machine_are_merged() {
    let mut record = record(MachineId::here(), "a");
    let mut more = record.clone();
    more.sites[0].winner = "b".to_string();
    more.sites.push(SiteRecord { site: site(64).key(), winner: "c".to_string(), kernels: vec![] });
    merge(&mut record, more.clone());
    let winners: Vec<&str> = record.sites.iter().map(|s| s.winner.as_str()).collect();
    assert_eq!(winners, ["a", "c"]);
    more.machine.cores += 1;
    more.sites[0].site.width = 1;
    merge(&mut record, more);
    assert_eq!(record.sites.len(), 2);
    let text = serde_json::to_string(&record).unwrap();
    assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), record);
}
