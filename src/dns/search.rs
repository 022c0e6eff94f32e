//! Which full names a written name may stand for.

use super::question::FullName;

/// The search list, as `resolv.conf` gives it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Search {
    pub(crate) domains: Vec<FullName>,
    /// A name of at least this many dots is tried as it stands first.
    pub(crate) ndots: usize,
}

impl Search {
    /// Full names in the order in which they are to be tried. Expanded here and not by the resolver, which would take
    /// a failure at one name for leave to go on to the next.
    pub(crate) fn candidates(&self, name: &str) -> Vec<FullName> {
        if name.ends_with('.') {
            return vec![FullName::new(name)];
        }
        let dots = name.bytes().filter(|byte| *byte == b'.').count();
        let below = self.domains.iter().filter(|domain| !domain.is_root());
        let mut candidates: Vec<FullName> = below.map(|domain| FullName::new(&format!("{name}.{domain}"))).collect();
        let position = if dots >= self.ndots { 0 } else { candidates.len() };
        candidates.insert(position, FullName::new(name));
        candidates
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(name: &str, domains: &[&str], ndots: usize) -> Vec<String> {
        let search = Search { domains: domains.iter().map(|domain| FullName::new(domain)).collect(), ndots };
        search.candidates(name).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_search_list_comes_before_or_after_the_name_itself() {
        let pod = ["default.svc.cluster.local", "svc.cluster.local"];
        assert_eq!(candidates("web", &pod, 5), ["web.default.svc.cluster.local.", "web.svc.cluster.local.", "web."]);
        assert_eq!(
            candidates("Web.Default", &pod, 1),
            ["web.default.", "web.default.default.svc.cluster.local.", "web.default.svc.cluster.local."]
        );
        assert_eq!(candidates("web.", &pod, 5), ["web."]);
        assert_eq!(candidates("web", &[], 1), ["web."]);
        assert_eq!(candidates("web", &[".", "corp.example"], 1), ["web.corp.example.", "web."]);
    }
}
