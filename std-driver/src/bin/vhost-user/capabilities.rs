//! What the devices can do, in the form of the `vhost-user.json` schema.

/// A device's capabilities.
#[derive(Debug)]
pub(crate) struct Capabilities {
    device: &'static str,
    features: &'static [&'static str],
}

impl Capabilities {
    /// The disk: it can be read-only, and is a file.
    pub(crate) const BLOCK: Self = Self { device: "block", features: &["read-only", "blk-file"] };

    /// The JSON object. Names are plain ASCII words, so nothing needs an escape.
    pub(crate) fn to_json(&self) -> String {
        let features: Vec<String> = self.features.iter().map(|feature| format!("\"{feature}\"")).collect();
        format!("{{ \"type\": \"{}\", \"features\": [ {} ] }}", self.device, features.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_the_json_of_the_schema() {
        let json = Capabilities::BLOCK.to_json();
        assert_eq!(json, r#"{ "type": "block", "features": [ "read-only", "blk-file" ] }"#);
    }
}
