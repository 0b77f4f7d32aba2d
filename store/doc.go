// Package store keeps records in one SQLite file, sealed. It knows what kinds of
// records there are, how they belong together and when they end, but not what is in
// them: its user packs that into a head (what lists and look-ups need) and a body (what
// only the reader of the one record needs), and hands in the cipher that seals them.
//
// # Changes
//
// All changes go through one queue and one goroutine, the writer, which makes a
// transaction of whatever waits, up to a thousand changes. Under load many share one sync
// of the disk: if many came at once, the writer waits up to 2 ms for as many again or,
// on a quick disk, for half as many. A change that comes alone does not wait. One that
// fails is taken out and reported, and the rest is tried again. Numbers are given in the
// queue's order, so that a list can say "up to number n".
//
// In commit mode (without Options.Periodic) a method returns when its change is
// committed, with synchronous=FULL. In periodic mode it returns at once, and Save writes
// what waits; Due says that there is something. A read first has everything written that
// waits, so everyone sees what they did. Numbers are then set aside by the thousand
// before they are given: after a crash some are skipped, and none is given twice. When
// saving fails it is tried again; past 10,000 unsaved changes callers wait. Status
// numbers (NextNumber) are set aside by the million in both modes.
//
// Reads run on goroutines of their own, because SQLite's deep stacks would make those of
// the callers grow.
//
// # The disk
//
// The database is in WAL mode. A new one is made under another name and renamed, so that
// one under its own name is whole. At start its header, its version and, up to 32 MB, its
// content are checked; a damaged or newer database is refused and left as it is.
//
// After a failed sync the writer writes nothing any more and calls Options.Failed: what
// the system shows then may never have reached the disk. For the same reason a write-ahead
// log that a killed server left is written again and synced at start, and checkpoints are
// the writer's, after every caller has its answer, not SQLite's inside a commit.
//
// The schema changes by migrations, in one transaction; a step is never changed, only
// appended. A reply inherits the end of its parent when it is stored, so that one look at
// an index finds everything that has ended. Purge deletes it in pieces of 500, but not
// before the lists that were begun earlier are read.
//
// On a full disk a transaction fails, after a checkpoint that gives the log its own space
// again, and the store goes on. The spare file, homeroom.spare, is space for what a start
// needs before it can read anything, and for deletions; a start that cannot store that it
// has begun skips status numbers instead. Space says how much is taken and could be. The
// column share says in whose share a record counts: a number of the store's user.
//
// # Sealing
//
// Heads and bodies are sealed as the last thing before they are written and opened as the
// first after they are read. A sealed column begins with its format and the number of its
// key; each table has a key of its own, derived from the master key, and the record's
// number, table and column are authenticated, so that nothing opens in another place; so
// are, since format 2, the group, parent, owner and end that stand beside it in clear. The
// table keys has a row for each master key in use, with a mark that tells a wrong key, and
// the salt and cost of a passphrase. A database without such a row was never sealed: that
// is done at start, in one transaction, and then the file is written anew (VACUUM). A new
// table with something of users in it needs a Kind, or sealing of its own.
//
// Rotate puts the new key on the disk, notes it in the database together with the old key
// sealed with the new one, gives the new key file its name, seals a page of records in
// each transaction, drops the old row and writes the file anew. From the first transaction
// on the new key alone opens everything, so a server may run between two attempts.
//
// # Copies
//
// Backup is VACUUM INTO over a read-only connection, so that it needs no key and may run
// beside a server. Restore copies and checks the backup under another name, keeps the old
// database and its write-ahead log together under a third (by links), and then renames; a
// start that finds a restore half done refuses. Check looks at the structure and opens
// every record.
package store
