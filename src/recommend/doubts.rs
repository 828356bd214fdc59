//! What the fits behind an answer left open, law by law: the verdicts that a reader of the answer must know.

use super::platform::Platform;
use super::search::{Point, Search};
use crate::law::{Target, Verdict};

/// Share of a prediction below which a parameter does not matter for it.
const MATTERS: f64 = 0.01;

/// One verdict, the quantities whose laws it is about, and their platforms.
struct Doubt {
    said: String,
    targets: Vec<Target>,
    platforms: Vec<String>,
}

impl Search<'_> {
    /// The verdicts on the laws that the answer rests on, each with the laws' names; what laws share is said once.
    pub(super) fn doubts(&self, first: &Point) -> Vec<String> {
        let mut all: Vec<Doubt> = Vec::new();
        for (place, platform) in self.platforms.iter().enumerate() {
            let (gpu_model, engine, precision) = platform.names();
            let name = self.varies.names(gpu_model, engine, precision).join(", ");
            for doubt in self.of_platform(platform, (place == first.platform).then_some(first)) {
                let same = |other: &&mut Doubt| other.said == doubt.said && other.targets == doubt.targets;
                match all.iter_mut().find(same) {
                    Some(known) => known.platforms.push(name.clone()),
                    None => all.push(Doubt { platforms: vec![name.clone()], ..doubt }),
                }
            }
        }
        all.into_iter().map(|doubt| doubt.in_words()).collect()
    }

    /// What is said of the laws of one platform; of parameters that were not identified only those that matter for `first`.
    fn of_platform(&self, platform: &Platform<'_>, first: Option<&Point>) -> Vec<Doubt> {
        let mut doubts: Vec<Doubt> = Vec::new();
        for target in &self.used {
            let Some(law) = platform.law(*target) else { continue };
            for verdict in &law.verdicts {
                let said = match verdict {
                    Verdict::NotConverged { .. } | Verdict::TooFewRows { .. } => verdict.to_string(),
                    Verdict::Unidentified { parameters, why } => {
                        let matter = first.map(|first| self.that_matter(first, *target)).unwrap_or_default();
                        let parameters: Vec<String> =
                            parameters.iter().filter(|p| matter.contains(p)).cloned().collect();
                        if parameters.is_empty() {
                            continue;
                        }
                        Verdict::Unidentified { parameters, why: why.clone() }.to_string()
                    }
                    _ => continue,
                };
                match doubts.iter_mut().find(|d| d.said == said) {
                    Some(known) => known.targets.push(*target),
                    None => doubts.push(Doubt { said, targets: vec![*target], platforms: Vec::new() }),
                }
            }
        }
        doubts
    }

    /// Names of the parameters on which the prediction of `target` depends at `point`.
    fn that_matter(&self, point: &Point, target: Target) -> Vec<String> {
        let Ok(Some((law, cases))) = self.law_and_cases(point, target) else { return Vec::new() };
        let gradient = law.mean_and_gradient(&cases).1;
        // A coefficient moves the logarithm by its share, an exponent by its own step; a coefficient that was held at zero
        // has no share, and matters wherever its term would.
        let coefficients = law.coefficients.iter().map(|c| (&c.name, (c.value == 0.0, c.value)));
        let exponents = law.exponents.iter().map(|e| (&e.name, (false, 1.0)));
        let all = coefficients.chain(exponents).zip(gradient);
        let matters =
            all.filter(|((_, (is_held, scale)), g)| if *is_held { *g > 0.0 } else { (scale * g).abs() >= MATTERS });
        matters.map(|((name, _), _)| name.clone()).collect()
    }
}

impl Doubt {
    fn in_words(&self) -> String {
        let targets: Vec<&str> = self.targets.iter().map(|t| t.as_str()).collect();
        let (laws, s) = match targets.as_slice() {
            [only] => ((*only).to_owned(), ""),
            [before @ .., last] => (format!("{} and {last}", before.join(", ")), "s"),
            [] => (String::new(), ""),
        };
        let platforms: Vec<&str> = self.platforms.iter().map(String::as_str).filter(|name| !name.is_empty()).collect();
        let platforms = platforms.join("; ");
        let platforms = if platforms.is_empty() { String::new() } else { format!(" ({platforms})") };
        format!("the law{s} of {laws}{platforms}: {}", self.said)
    }
}
