//! What a configuration is called: its degrees and its batch, and as much of its platform as tells it from the others.

use serde::Serialize;

use super::answer::{Candidate, figure};

/// Stands for an engine or a precision that neither rows nor law name.
const UNNAMED: [&str; 2] = ["engine not named", "precision not named"];

/// What of the platform differs among all that were looked at: a name has to say it. What all share stays unsaid, so that
/// a common answer is short.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Varies {
    /// Whether there is more than one GPU model.
    pub gpu_model: bool,
    /// Whether there is more than one engine.
    pub engine: bool,
    /// Whether there is more than one precision.
    pub precision: bool,
}

/// GPU, engine and precision.
pub(super) type Names<'a> = (&'a str, Option<&'a str>, Option<&'a str>);

impl Varies {
    pub(super) fn among<'a>(mut platforms: impl Iterator<Item = Names<'a>>) -> Self {
        let Some(first) = platforms.next() else { return Self::default() };
        platforms.fold(Self::default(), |varies, other| Self {
            gpu_model: varies.gpu_model || other.0 != first.0,
            engine: varies.engine || other.1 != first.1,
            precision: varies.precision || other.2 != first.2,
        })
    }

    /// Whether there is one platform only.
    pub fn is_nothing(self) -> bool {
        self == Self::default()
    }

    /// Titles of what differs, in the order of [`names`](Self::names).
    pub fn titles(self) -> Vec<&'static str> {
        let all = [(self.gpu_model, "GPU"), (self.engine, "engine"), (self.precision, "precision")];
        all.into_iter().filter(|(differs, _)| *differs).map(|(_, title)| title).collect()
    }

    /// What differs, of one platform.
    pub fn names<'a>(self, gpu_model: &'a str, engine: Option<&'a str>, precision: Option<&'a str>) -> Vec<&'a str> {
        let [no_engine, no_precision] = UNNAMED;
        let all = [
            (self.gpu_model, gpu_model),
            (self.engine, engine.unwrap_or(no_engine)),
            (self.precision, precision.unwrap_or(no_precision)),
        ];
        all.into_iter().filter(|(differs, _)| *differs).map(|(_, name)| name).collect()
    }

    /// The same in brackets, to stand behind degrees; empty where nothing differs.
    pub(super) fn in_brackets(self, names: Names<'_>) -> String {
        let names = self.names(names.0, names.1, names.2);
        if names.is_empty() { String::new() } else { format!(" ({})", names.join(", ")) }
    }
}

impl Candidate {
    pub(super) fn platform_names(&self) -> Names<'_> {
        (&self.gpu_model, self.engine.as_deref(), self.precision.as_deref())
    }

    /// What tells its platform from the others that were looked at: GPU, engine, precision, as far as they differ.
    pub fn told_apart_by(&self) -> Vec<&str> {
        let (gpu_model, engine, precision) = self.platform_names();
        self.varies.names(gpu_model, engine, precision)
    }

    /// `TP 4 x PP 1 x DP 2, batch 32`.
    pub fn degrees(&self) -> String {
        format!(
            "TP {} x PP {} x DP {}, batch {}",
            self.tensor_parallel,
            self.pipeline_parallel,
            self.data_parallel,
            figure(self.batch_size)
        )
    }

    /// `TP 4 x PP 1 x DP 2, batch 32 (H100-SXM5-80GB, fp8)`: in brackets what tells its platform from others.
    pub fn label(&self) -> String {
        format!("{}{}", self.degrees(), self.varies.in_brackets(self.platform_names()))
    }

    /// `2 x H100-SXM5-80GB (fp8)`: the GPUs, and in brackets what else tells the platform from others.
    pub(super) fn hardware(&self) -> String {
        let others = Varies { gpu_model: false, ..self.varies };
        format!("{} x {}{}", self.num_gpus, self.gpu_model, others.in_brackets(self.platform_names()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_named() {
        let of = |platforms: &[Names<'_>]| Varies::among(platforms.iter().copied());
        let here: Names<'_> = ("H100", Some("vllm"), Some("fp8"));
        assert!(of(&[]).is_nothing() && of(&[here, here]).is_nothing());
        assert_eq!(of(&[here, here]).in_brackets(here), "");
        let precisions = of(&[here, ("H100", Some("vllm"), Some("bf16"))]);
        assert_eq!(precisions.titles(), ["precision"]);
        assert_eq!(precisions.in_brackets(here), " (fp8)");
        let all = of(&[here, ("A100", None, Some("fp8")), ("H100", Some("vllm"), None)]);
        assert_eq!(all.in_brackets(("A100", None, None)), " (A100, engine not named, precision not named)");
    }
}
