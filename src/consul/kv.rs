//! Keys and their values.

use std::num::NonZeroU64;

use bytes::Bytes;
use http::StatusCode;

use super::Indexed;
use super::client::{Client, Place};
use super::error::Error;
use super::question::Question;

/// Consul's own bound of a value is 512 KiB unless it is raised.
const VALUE_BYTES: usize = 4 << 20;

impl Client {
    /// The value of a key, `None` where it does not exist: that too has an index, so its making can be waited for.
    /// With an index, the answer comes when something may have changed since, or after a minute.
    ///
    /// # Errors
    /// Where no agent tells.
    pub(crate) async fn key(&self, key: &str, index: Option<NonZeroU64>) -> Result<Indexed<Option<Bytes>>, Error> {
        let path = key.split('/').fold(Question::get("/v1/kv", VALUE_BYTES), Question::segment);
        let question = self.placed(path, Place::default()).flag("raw").since(index);
        let answer = self.ask(question).await?;
        let found = answer.status != StatusCode::NOT_FOUND;
        if !found && answer.index.is_none() {
            // Consul counts also what does not exist; somebody else listens here.
            return Err(answer.unusable("a 404 without an index"));
        }
        Ok(Indexed { index: answer.index, value: found.then_some(answer.body) })
    }
}
