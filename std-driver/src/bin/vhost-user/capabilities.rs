//! What the devices can do, in the form of the `vhost-user.json` schema.

/// A device's capabilities.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Capabilities {
    /// The sub-command that serves the device.
    pub(crate) command: &'static str,
    device: &'static str,
    features: &'static [&'static str],
}

impl Capabilities {
    /// The disk: it can be read-only, and is a file.
    pub(crate) const BLOCK: Self = Self { command: "blk", device: "block", features: &["read-only", "blk-file"] };

    /// The console. Of this and of other devices the schema knows nothing but the type.
    pub(crate) const CONSOLE: Self = Self { command: "console", device: "console", features: &[] };

    /// The network interface.
    pub(crate) const NET: Self = Self { command: "net", device: "net", features: &[] };

    /// The entropy source.
    pub(crate) const ENTROPY: Self = Self { command: "rng", device: "rng", features: &[] };

    /// All devices of this program.
    pub(crate) const ALL: [Self; 4] = [Self::BLOCK, Self::CONSOLE, Self::NET, Self::ENTROPY];

    /// The JSON object. Names are plain ASCII words, so nothing needs an escape.
    pub(crate) fn to_json(self) -> String {
        if self.features.is_empty() {
            return format!("{{ \"type\": \"{}\" }}", self.device);
        }
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
        assert_eq!(Capabilities::ENTROPY.to_json(), r#"{ "type": "rng" }"#);
    }
}
