//! The claim that needs the host's eyes: a stored secret is nowhere that anybody but the two processes that need it could
//! read it.

use crate::claims::{Claim, REAL_KEY, Stage};
use crate::nowhere::{Sought, is_nowhere};

impl Stage {
    /// The key is nowhere, see [`is_nowhere`]. The same search finds the placeholder, in files as well.
    pub fn secret_is_nowhere(&self) -> Claim {
        let placeholder = self.placeholder()?;
        let secret = REAL_KEY.get(13..).unwrap_or(REAL_KEY);
        let sought = Sought {
            secrets: &[("the key", secret)],
            placeholders: &[("the placeholder", &placeholder)],
            ..Sought::default()
        };
        let found = is_nowhere(&self.installation, &sought)?;
        if found.files_with_placeholders == 0 {
            return Err("the search does not find the placeholder in files".to_owned());
        }
        Ok(found.to_string())
    }

    fn placeholder(&self) -> Result<String, String> {
        let said = self
            .installation
            .inside(&self.sandbox, "sync; printenv ANTHROPIC_API_KEY");
        let placeholder = said.success()?.trim().to_owned();
        match placeholder.strip_prefix("sk-ant-api03-") {
            Some(random) if random.len() > 40 => Ok(random.to_owned()),
            _ => Err(format!("no placeholder: {placeholder:?}")),
        }
    }
}
