//! DNS: the guest's questions, and the answers of upstream resolvers.

use sbx_gateway::adapter::dns::{Carrier, answer};
use sbx_gateway::resolver::read_answer;
use sbx_policy::HostName;

use crate::gateway::{block_on, gateway};

/// An answer belongs to its question, gives out addresses for names that a rule allows only, and is no question itself.
pub(crate) fn run(bytes: &[u8]) {
    let Some(reply) = block_on(answer(gateway(), bytes, Carrier::Udp)) else {
        return;
    };
    assert!(reply.len() >= 12, "a header");
    assert_eq!(reply[..2], bytes[..2], "the id");
    assert!(reply[2] & 0x80 != 0, "a response");
    let code = reply[3] & 0xf;
    let answers = u16::from_be_bytes([reply[6], reply[7]]);
    assert!(
        code == 0 || answers == 0,
        "code {code} with {answers} answers"
    );
    // Nothing is asked upstream here: all that can be answered are names that we answer ourselves.
    assert!(answers <= 1);
    // An answer is not answered: two gateways would talk for ever.
    assert!(block_on(answer(gateway(), &reply, Carrier::Udp)).is_none());
}

/// Addresses that come out of a resolver's message are few, and none come of a message about another name.
pub(crate) fn run_answer(bytes: &[u8]) {
    let asked = HostName::parse("asked.test").expect("a name");
    if let Some(Ok(answer)) = read_answer(&asked, bytes) {
        assert!(!answer.addresses.is_empty() && answer.addresses.len() <= 32);
        let other = HostName::parse("other.test").expect("a name");
        assert!(read_answer(&other, bytes).is_none());
    }
}
