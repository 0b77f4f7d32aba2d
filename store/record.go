package store

import (
	"encoding/binary"
	"errors"
	"strings"
)

// Kind is a kind of stored record.
type Kind uint8

const (
	Account Kind = iota
	Room
	Group
	Message
	Ban
	Kinds // how many there are
)

// String names a kind for errors.
func (k Kind) String() string {
	return [...]string{"account", "room", "group", "message", "ban", "?"}[k]
}

// hasBody reports whether records of a kind have a body.
func (k Kind) hasBody() bool { return k == Account || k == Message }

// table is where records of a kind are stored.
func (k Kind) table() string {
	return [...]string{"accounts", "rooms", "groups", "messages", "bans"}[k]
}

// Record is one stored thing. What users wrote is in head and body, packed by
// packFields; the numbers are the store's business too.
type Record struct {
	Kind    Kind
	ID      int64
	Parent  int64  // a message's: what it answers, 0 at the top; a room's or group's: its owner's account
	Group   int64  // a message's
	Ends    int64  // when it expires; a message's replies end with it; an account's: when it was last here, in Unix seconds
	Replies int64  // a message's
	Total   int64  // a group's: how many messages it has
	Share   int64  // whose share of the disk it counts in, as its maker says; 0: nobody's
	Stored  int64  // its Size when it was stored, where it is not all there
	Head    []byte // what lists and look-ups need
	Body    []byte // what only the reader of this one record needs
}

// Store keeps records. In commit mode a method that changes something returns
// when the change would survive a power cut; in periodic mode the next
// Save does it. Its errors are errNotFound, errFull, errBroken, or others
// with their cause.
type Store interface {
	// Load calls each with every account (without body), room, group and ban, at start;
	// a group whose messages are still being deleted has no head.
	Load(k Kind, each func(Record) error) error
	// Add stores a new record under the next number of its kind, which it sets.
	// A message's parent must be in its group and alive; it sets when it ends.
	Add(r *Record) error
	// Replace stores an account or a room anew under its number; a head or a body
	// that is nil stays as it is.
	Replace(r Record) error
	// Swap is replace for an account, unless its body is no longer what it was.
	Swap(r Record, was []byte) error
	// Remove deletes a record; a group's messages go with it, by and by.
	Remove(k Kind, id int64) error
	// Get finds an account or a message.
	Get(k Kind, id int64) (Record, error)
	// List begins to list a group's messages: those that answer parent, or all
	// with parent listAll. What ends meanwhile stays on the list.
	List(group, parent int64) (*List, error)
	// Page is the next messages of a list, without body; none: it is done.
	Page(l *List) ([]Record, error)
	// EndList lets go of what list held.
	EndList(l *List)
	// Purge deletes some messages that have ended, or whose group is deleted, and
	// says which, and when to come again.
	Purge() (Purged, error)
	// NextNumber is a status number that was never given before.
	NextNumber() int64
	// EndThread ends a message of a group, and all that answer it: from then on they are
	// in no list that begins, and Purge deletes them.
	EndThread(group, id int64) error
	// Save stores ends, the clock, and all that was acknowledged before. It returns
	// when that is done.
	Save(ends Ends) error
	// Due says that something was acknowledged that a Save is to store.
	Due() <-chan struct{}
	// Heartbeat returns when the writer has come to it. It writes nothing.
	Heartbeat()
	// Shares is how much of the disk the messages of each share take.
	Shares() (map[int64]int64, error)
	// Space is what the store takes of the disk, and what it could still take.
	Space() Space
	// Stats is how the database is doing.
	Stats() Stats
	Close() error
}

// Ends says of accounts, rooms and groups when they end (of accounts: when they were last
// here).
type Ends map[Ref]int64

// Ref names a record.
type Ref struct {
	Kind Kind
	ID   int64
}

// All as a list's parent asks for all messages of the group.
const All = -1

// List is a list of messages that is being read, as of one moment.
type List struct {
	// set when it is begun
	At    int64 // what had ended by then is not on it
	Count int64 // how many messages are on it
	// set by Page
	Done bool // nothing comes after

	group, parent int64
	upTo          int64 // the last number that can be on it
	after         int64 // the last number that was read
}

// Purged is what a purge did: of each deleted message kind, id, group, parent.
type Purged struct {
	Gone []Record // with their share and what they took of it
	Next int64    // never: none
	More bool     // there is more to delete at once
	Held bool     // what is left waits for a list to be read to its end
}

// Pack joins strings so that Unpack finds them again.
func Pack(fields ...string) []byte {
	size := 0
	for _, f := range fields {
		size += len(f) + binary.MaxVarintLen16
	}
	b := make([]byte, 0, size)
	for _, f := range fields {
		f = Compact(f)
		b = binary.AppendUvarint(b, uint64(len(f)))
		b = append(b, f...)
	}
	return b
}

// What U+FFFD takes in a record: one byte, that is in no UTF-8. It stands for a byte that
// was not UTF-8 when it came, and must not cost three.
const replaced, replacedBy = "\uFFFD", "\xFF"

// Compact is a text as Pack stores it.
func Compact(text string) string { return strings.ReplaceAll(text, replaced, replacedBy) }

// The errors of a store that its users can do something about.
var (
	ErrNotFound = errors.New("there is no such record")
	ErrFull     = errors.New("there is no space to store anything")
	ErrBroken   = errors.New("the disk failed; nothing is saved any more") // the reason is in the log, once
)

var ErrDamaged = errors.New("a stored record is damaged")

// Unpack takes apart what packFields joined; there must be least fields
// or more.
func Unpack(b []byte, least int) ([]string, error) {
	fields := make([]string, 0, max(least, 1))
	for len(b) > 0 {
		size, n := binary.Uvarint(b)
		if n <= 0 || size > uint64(len(b)-n) {
			return nil, ErrDamaged
		}
		fields = append(fields, strings.ReplaceAll(string(b[n:n+int(size)]), replacedBy, replaced))
		b = b[n+int(size):]
	}
	if len(fields) < least {
		return nil, ErrDamaged
	}
	return fields, nil
}
