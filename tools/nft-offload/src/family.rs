// SPDX-License-Identifier: GPL-2.0

//! A generic netlink family as a client sees it, and that of the module.

use crate::{
    failure::{Failure, NO_MODULE},
    netlink::{self, Attributes, Error, Outcome, Socket, NETLINK_GENERIC},
    spec::{self, key, Set},
    system,
};
use serde_json::{json, Value};

/// Of the kernel's controller of families.
const GENL_ID_CTRL: u16 = 16;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const CTRL_ATTR_VERSION: u16 = 3;

/// A family by its name, any that the kernel has.
pub struct Client {
    socket: Socket,
    id: u16,
    version: u8,
}

impl Client {
    /// Fails with ENOENT if the kernel has no such family.
    pub fn open(name: &str) -> Result<Self, Error> {
        let mut request = Attributes::after(&[CTRL_CMD_GETFAMILY, 1, 0, 0]);
        request.put_str(CTRL_ATTR_FAMILY_NAME, name);
        let mut client = Self { socket: Socket::open(NETLINK_GENERIC)?, id: 0, version: 1 };
        client.socket.ask(GENL_ID_CTRL, request.bytes(), |answer| {
            let attributes = after_header(answer)?;
            if let Some(id) = netlink::attribute(attributes, CTRL_ATTR_FAMILY_ID) {
                client.id = u16::from_ne_bytes(id.try_into().map_err(|_| Error::Malformed("family id".into()))?);
            }
            if let Some(&[version, ..]) = netlink::attribute(attributes, CTRL_ATTR_VERSION) {
                client.version = version;
            }
            Ok(())
        })?;
        match client.id {
            0 => Err(Error::Malformed(format!("family {name} has no number"))),
            _ => Ok(client),
        }
    }

    /// One request, with an answer or none; `each` gets the attributes.
    pub fn ask(
        &mut self,
        operation: u8,
        request: &Attributes,
        mut each: impl FnMut(&[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let request = self.message(operation, request);
        self.socket.ask(self.id, &request, |answer| each(after_header(answer)?))
    }

    pub fn dump(
        &mut self,
        operation: u8,
        request: &Attributes,
        mut each: impl FnMut(&[u8]) -> Result<(), Error>,
    ) -> Result<Outcome, Error> {
        let request = self.message(operation, request);
        self.socket.dump(self.id, &request, |answer| each(after_header(answer)?))
    }

    fn message(&self, operation: u8, request: &Attributes) -> Vec<u8> {
        [&[operation, self.version, 0, 0], request.bytes()].concat()
    }
}

fn after_header(message: &[u8]) -> Result<&[u8], Error> {
    message.get(4..).ok_or_else(|| Error::Malformed("no header of a generic family".into()))
}

/// The module's family. Requests and answers are objects with the names of the specification.
pub struct Offload(Client);

/// What the attributes of all messages are.
static MESSAGE: &Set = &spec::MESSAGE;

impl Offload {
    pub fn open() -> Result<Self, Failure> {
        match Client::open(spec::FAMILY) {
            Ok(client) => Ok(Self(client)),
            Err(error) if error.errno() == Some(2) => Err(Failure::new(NO_MODULE, system::why_no_family())),
            Err(error) => Err(Failure::about("the kernel's list of netlink families", &error)),
        }
    }

    /// Calls `each` for the object called `what` of each answer.
    pub fn dump(
        &mut self,
        about: &str,
        operation: u8,
        request: &Value,
        what: &str,
        mut each: impl FnMut(Value) -> std::io::Result<()>,
    ) -> Result<Outcome, Failure> {
        self.0
            .dump(operation, &spec::encode(MESSAGE, request), |answer| {
                match spec::decode(MESSAGE, answer)?[what].take() {
                    Value::Null => Ok(()),
                    object => each(object).map_err(Error::Consumer),
                }
            })
            .map_err(|error| Failure::about(about, &error))
    }

    /// All objects of a dump that is never long.
    pub fn list(&mut self, about: &str, operation: u8, what: &str) -> Result<Vec<Value>, Failure> {
        let mut list = vec![];
        self.dump(about, operation, &json!({}), what, |object| {
            list.push(object);
            Ok(())
        })?;
        Ok(list)
    }

    pub fn devices(&mut self) -> Result<Vec<Value>, Failure> {
        self.list("the devices", spec::op::DEVICE_GET, "device")
    }

    pub fn tables(&mut self) -> Result<Vec<Value>, Failure> {
        self.list("the flowtables", spec::op::TABLE_GET, "table").map(joined)
    }

    pub fn reasons(&mut self) -> Result<Vec<Value>, Failure> {
        self.list("the reasons", spec::op::REASON_GET, "reason-count")
    }

    pub fn totals(&mut self) -> Result<Value, Failure> {
        Ok(self.list("the totals", spec::op::TOTAL_GET, "total")?.pop().unwrap_or_default())
    }

    /// Has flows taken out. Returns how many. Fails with ENOENT if what is asked for is not there.
    pub fn take_out(&mut self, about: &str, operation: u8, request: &Value) -> Result<u64, Failure> {
        let mut taken = 0;
        self.dump(about, operation, request, "count", |count| {
            taken += count.as_u64().unwrap_or(0);
            Ok(())
        })?;
        Ok(taken)
    }
}

/// Tables with many devices take several messages, of which those after the first say that they go on.
fn joined(mut tables: Vec<Value>) -> Vec<Value> {
    tables.dedup_by(|next, table| {
        if next[key::CONTINUED] != true {
            return false;
        }
        if let (Some(ports), Some(more)) = (table[key::PORT].as_array_mut(), next[key::PORT].as_array_mut()) {
            ports.append(more);
        }
        true
    });
    tables
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_of_several_messages_is_one() {
        let part = |name: &str, ports: &[u32]| json!({ "flowtable": name, "port": ports });
        let more = |name: &str, ports: &[u32]| json!({ "flowtable": name, "port": ports, "continued": true });
        let tables = vec![part("a", &[1, 2]), more("a", &[3]), more("a", &[4]), part("b", &[5])];
        assert_eq!(joined(tables), [part("a", &[1, 2, 3, 4]), part("b", &[5])]);
    }

    #[test]
    fn the_kernels_own_families_are_found() {
        let mut client = Client::open("nlctrl").unwrap();
        assert_eq!(client.id, GENL_ID_CTRL);

        let mut names = vec![];
        let outcome = client.dump(CTRL_CMD_GETFAMILY, &Attributes::default(), |family| {
            let name = netlink::attribute(family, CTRL_ATTR_FAMILY_NAME).unwrap();
            names.push(String::from_utf8_lossy(name).trim_end_matches('\0').to_string());
            Ok(())
        });
        assert!(!outcome.unwrap().interrupted);
        assert!(names.iter().any(|name| name == "nlctrl"), "{names:?}");

        // A second request on the same socket, and a failure in the midst of an answer.
        let error = client
            .dump(CTRL_CMD_GETFAMILY, &Attributes::default(), |_| {
                Err(Error::Consumer(std::io::ErrorKind::BrokenPipe.into()))
            })
            .unwrap_err();
        assert!(Failure::about("", &error).is_broken_pipe());
    }

    #[test]
    fn the_kernels_words_are_in_the_error() {
        assert_eq!(Client::open("no such family").err().unwrap().errno(), Some(2));

        let mut client = Client::open("nlctrl").unwrap();
        let mut request = Attributes::default();
        // Larger than the policy has it.
        request.put(CTRL_ATTR_FAMILY_ID, &[0; 1]);
        let error = client.ask(CTRL_CMD_GETFAMILY, &request, |_| Ok(())).unwrap_err();
        assert!(
            matches!(&error, Error::Kernel { errno: 34 | 22, words: Some(words) } if words.contains("policy")),
            "{error:?}"
        );
    }
}
