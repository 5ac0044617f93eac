//! TLS client hellos as no library sends them (RFC 8446, section 4.1.2).

/// What is said; the rest is as a common client has it.
pub(crate) struct Hello {
    /// The server name as bytes. None: no such extension.
    pub(crate) name: Option<Vec<u8>>,
    /// 0x0301 is TLS 1.0, 0x0303 is TLS 1.2 and what TLS 1.3 writes here.
    pub(crate) version: u16,
    /// `supported_versions`; empty: no such extension, so nothing newer than `version` is offered.
    pub(crate) versions: Vec<u16>,
    /// Cipher suites.
    pub(crate) suites: Vec<u16>,
    /// Bytes of the handshake message in each record.
    pub(crate) record: usize,
}

impl Hello {
    pub(crate) fn new(name: impl AsRef<[u8]>) -> Self {
        Self {
            name: Some(name.as_ref().to_vec()),
            version: 0x0303,
            versions: vec![0x0304, 0x0303],
            // One of TLS 1.3, one of TLS 1.2.
            suites: vec![0x1301, 0xc02b],
            record: 16 * 1024,
        }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut body = self.version.to_be_bytes().to_vec();
        body.extend_from_slice(&[7; 32]); // random
        body.push(0); // session id
        let suites: Vec<u8> = self.suites.iter().flat_map(|s| s.to_be_bytes()).collect();
        body.extend(long(&suites));
        body.extend_from_slice(&[1, 0]); // no compression
        let mut extensions = Vec::new();
        if let Some(name) = &self.name {
            let entry = [&[0][..], &long(name)].concat();
            extensions.extend(extension(0, &long(&entry)));
        }
        if !self.versions.is_empty() {
            let list: Vec<u8> = self.versions.iter().flat_map(|v| v.to_be_bytes()).collect();
            extensions.extend(extension(43, &short(&list)));
        }
        extensions.extend(extension(10, &long(&[0, 23]))); // groups: P-256
        extensions.extend(extension(13, &long(&[4, 3, 8, 4]))); // signatures: ECDSA, RSA-PSS
        let share = [&[0, 23][..], &long(&[4; 65])].concat();
        extensions.extend(extension(51, &long(&share)));
        body.extend(long(&extensions));
        let length = u32::try_from(body.len()).unwrap().to_be_bytes();
        let message = [&[1][..], &length[1..], &body].concat();
        let record = |part: &[u8]| [&[22, 3, 1][..], &long(part)].concat();
        message.chunks(self.record).flat_map(record).collect()
    }
}

fn extension(kind: u16, body: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &long(body)].concat()
}

fn short(bytes: &[u8]) -> Vec<u8> {
    [&[u8::try_from(bytes.len()).unwrap()][..], bytes].concat()
}

fn long(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).unwrap();
    [&length.to_be_bytes()[..], bytes].concat()
}
