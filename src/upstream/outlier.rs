//! Which endpoints of a pool are worse than the others.
//!
//! The rule of gRPC's proposal A50, which is Envoy's: at least five endpoints with enough requests, and a success rate
//! below the mean by so many standard deviations. In a smaller pool one bad endpoint drags the mean with it, so the rule
//! never fires there; failures in a row and the failure ratio do.

use super::window::Counts;

/// With fewer that have enough requests, nothing is compared. A50's and Envoy's default.
const LEAST_ENDPOINTS: usize = 5;

/// Positions of the outliers.
pub(crate) fn outliers(pool: &[Counts], min_requests: u32, deviations: f64) -> Vec<usize> {
    let rates: Vec<(usize, f64)> = pool
        .iter()
        .enumerate()
        .filter(|(_, counts)| counts.total >= min_requests.max(1))
        .map(|(position, counts)| (position, 1.0 - counts.failure_ratio()))
        .collect();
    if rates.len() < LEAST_ENDPOINTS {
        return Vec::new();
    }
    let count = rates.len() as f64;
    let mean = rates.iter().map(|(_, rate)| rate).sum::<f64>() / count;
    let variance = rates.iter().map(|(_, rate)| (rate - mean).powi(2)).sum::<f64>() / count;
    let least = mean - deviations * variance.sqrt();
    rates.into_iter().filter(|(_, rate)| *rate < least).map(|(position, _)| position).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pool(failed: &[u32]) -> Vec<Counts> {
        failed.iter().map(|failed| Counts { total: 100, failed: *failed, slow: 0 }).collect()
    }

    #[test]
    fn one_that_is_worse_is_found() {
        assert_eq!(outliers(&pool(&[1, 0, 30, 2, 1, 0]), 100, 1.9), [2]);
        assert_eq!(outliers(&pool(&[1, 0, 2, 1]), 100, 1.9), [0; 0]);
    }

    #[test]
    fn few_endpoints_or_requests_are_not_compared() {
        assert_eq!(outliers(&pool(&[0, 0, 0, 100]), 100, 1.9), [0; 0]);
        assert_eq!(outliers(&pool(&[1, 0, 30, 2, 1, 0]), 101, 1.9), [0; 0]);
    }

    proptest! {
        #[test]
        fn the_better_half_is_never_out(failed in prop::collection::vec(0u32..=100, 0..20), deviations in 0.5f64..3.0) {
            let out = outliers(&pool(&failed), 100, deviations);
            let mean = failed.iter().sum::<u32>() as f64 / failed.len().max(1) as f64;
            for position in out {
                prop_assert!(f64::from(failed[position]) > mean);
            }
            prop_assert!(outliers(&pool(&vec![7; failed.len()]), 100, deviations).is_empty(), "all alike");
        }
    }
}
