//! Deployments that do not start: each try may take minutes, and the next run would try again.

use crate::sweep::Point;

/// One failure may be somebody else's fault: a port, a neighbour's memory. A second one is the deployment's own.
const MOST_FAILED: u32 = 2;

/// How the starts of a session went, by deployment.
#[derive(Default)]
pub(super) struct Starts {
    known: Vec<Deployment>,
}

struct Deployment {
    /// Any of its points.
    point: Point,
    has_worked: bool,
    failed: u32,
    first: String,
}

impl Starts {
    /// Notes a deployment that has started.
    pub(super) fn worked(&mut self, point: &Point) {
        self.of(point).has_worked = true;
    }

    /// Notes one that has not, and why.
    pub(super) fn failed(&mut self, point: &Point, why: &str) {
        let deployment = self.of(point);
        deployment.failed += 1;
        if deployment.first.is_empty() {
            why.clone_into(&mut deployment.first);
        }
    }

    /// Why the deployment is not started again, if it is not.
    pub(super) fn given_up(&self, point: &Point) -> Option<String> {
        let deployment = self.known.iter().find(|d| d.point.shares_deployment(point))?;
        (deployment.failed >= MOST_FAILED && !deployment.has_worked).then(|| {
            format!(
                "not started again: {} starts of this deployment have failed and none has worked; the first: {}",
                deployment.failed, deployment.first
            )
        })
    }

    fn of(&mut self, point: &Point) -> &mut Deployment {
        let place = self.known.iter().position(|d| d.point.shares_deployment(point)).unwrap_or_else(|| {
            self.known.push(Deployment { point: point.clone(), has_worked: false, failed: 0, first: String::new() });
            self.known.len() - 1
        });
        &mut self.known[place]
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::sweep::Plan;

    #[test]
    fn a_deployment_that_never_worked_is_given_up_after_its_second_failure() {
        let source = "local el = require 'energylens'\nreturn el.sweep { name = 's', design = el.factorial {},\n\
                      workload = el.simulated { gpus = 8 }, axes = { model = 'llama-2-7b', gpu_model = 'a100',\n\
                      tensor_parallel = el.choice { 1, 2 }, batch_size = el.choice { 1, 2 }, input_tokens = 64,\n\
                      output_tokens = 16 } }";
        let points = Plan::from_source("s.lua", source, Path::new("."), &mut |_| ()).expect("a plan").points;
        let of = |tensor_parallel| points.iter().filter(move |p| p.tensor_parallel == tensor_parallel);
        let (one, two): (Vec<&Point>, Vec<&Point>) = (of(1).collect(), of(2).collect());
        let mut starts = Starts::default();
        starts.failed(one[0], "out of memory, see the first log");
        assert_eq!(starts.given_up(one[0]), None);
        starts.failed(one[1], "another reason");
        let why = starts.given_up(one[0]).expect("it is given up");
        assert!(why.contains("2 starts") && why.ends_with("the first: out of memory, see the first log"), "{why}");
        assert_eq!(starts.given_up(two[0]), None, "another deployment");
        // What has worked once can work again.
        starts.worked(two[0]);
        starts.failed(two[0], "a");
        starts.failed(two[1], "b");
        assert_eq!(starts.given_up(two[1]), None);
    }
}
