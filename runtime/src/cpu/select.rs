//! The k largest of a row, without memory of its own.

/// Indices of the `k` largest of `scores`, largest first, ties to the lower index, as `topk` orders
/// them. What is no number or -∞ counts as not there; the first indices that were not chosen fill up.
///
/// The answer lies in `place`, whose elements hold indices as whole numbers below 2²⁴.
pub(super) fn select<'a>(scores: &[f32], k: usize, place: &'a mut [f32]) -> &'a [f32] {
    // Adding zero makes -0 equal to 0: the two are a tie.
    let key = |i: f32| scores[i as usize] + 0.0;
    let mut n = 0;
    for i in (0..scores.len()).filter(|i| scores[*i] > f32::NEG_INFINITY) {
        let score = scores[i] + 0.0;
        if n == k && score <= key(place[n - 1]) {
            continue;
        }
        let at = place[..n].partition_point(|j| key(*j) >= score);
        n = (n + 1).min(k);
        place[at..n].rotate_right(1);
        place[at] = i as f32;
    }
    for i in 0..scores.len() {
        if n == k {
            break;
        }
        if !place[..n].contains(&(i as f32)) {
            place[n] = i as f32;
            n += 1;
        }
    }
    &place[..n]
}

#[cfg(test)]
mod tests {
    use super::select;
    use ds4_ir::ops::largest;

    #[test]
    fn is_what_the_interpreter_selects() {
        let noise = |i: u32| (i.wrapping_mul(2_654_435_761) >> 20) % 23;
        for case in 0..200 {
            let mut scores: Vec<f32> = (0..40).map(|i| noise(i + 97 * case) as f32 - 5.0).collect();
            scores[case as usize % 40] =
                [f32::NAN, f32::NEG_INFINITY, f32::INFINITY, -0.0][case as usize % 4];
            for k in [1, 6, 39] {
                let mut place = [0.0; 40];
                let got: Vec<usize> = select(&scores, k, &mut place).iter().map(|i| *i as usize).collect();
                let expected = largest(&scores, k);
                assert_eq!(got[..expected.len()], expected, "{scores:?}");
                assert_eq!(got.len(), k);
            }
        }
        let mut place = [0.0; 3];
        assert_eq!(select(&[f32::NAN, 1.0, f32::NAN], 3, &mut place), [1.0, 0.0, 2.0]);
    }
}
