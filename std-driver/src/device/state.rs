//! What moves along with a device besides its rings and its configuration space.

/// Why a device cannot give its state, or does not take one.
pub type StateError = Box<dyn core::error::Error + Send + Sync>;

/// A device's internal state, for migration: what it knows of its driver that is in neither the rings nor the guest's memory.
///
/// Both calls come while no queue runs. The bytes are the device's own matter; those to load come from another process, of
/// another version perhaps, and are as trustworthy as it is.
///
/// ```
/// use vhost_std::device::{DeviceState, StateError};
///
/// struct Brightness(std::sync::atomic::AtomicU8);
///
/// impl DeviceState for Brightness {
///     fn save(&self) -> Result<Vec<u8>, StateError> {
///         Ok(vec![self.0.load(std::sync::atomic::Ordering::Relaxed)])
///     }
///     fn load(&self, state: &[u8]) -> Result<(), StateError> {
///         let [brightness] = state else { return Err("expected one byte".into()) };
///         Ok(self.0.store(*brightness, std::sync::atomic::Ordering::Relaxed))
///     }
/// }
/// ```
pub trait DeviceState: Send + Sync {
    /// Bytes that a state has at most. A longer one is not taken.
    fn size_max(&self) -> usize {
        1 << 20
    }

    /// The state as it is now.
    ///
    /// # Errors
    /// When the device cannot move.
    fn save(&self) -> Result<Vec<u8>, StateError>;

    /// Goes on from a state that [`save`](Self::save) gave, perhaps in another process.
    ///
    /// # Errors
    /// When it is none; then nothing changes.
    fn load(&self, state: &[u8]) -> Result<(), StateError>;
}
