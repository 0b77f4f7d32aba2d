package main

import (
	"encoding/binary"
	"errors"
)

// kind is a kind of stored record.
type kind uint8

const (
	kindAccount kind = iota
	kindRoom
	kindGroup
	kindMessage
	kindBan
	kinds // how many there are
)

// String names a kind for errors.
func (k kind) String() string {
	return [...]string{"account", "room", "group", "message", "ban", "?"}[k]
}

// hasBody tells whether records of a kind have a body.
func (k kind) hasBody() bool { return k == kindAccount || k == kindMessage }

// table is where records of a kind are stored.
func (k kind) table() string {
	return [...]string{"accounts", "rooms", "groups", "messages", "bans"}[k]
}

// record is one stored thing. What users wrote is in head and body, packed by
// packFields; the numbers are the store's business too.
type record struct {
	kind    kind
	id      int64
	parent  int64   // a message's: what it answers, 0 at the top; a room's or group's: its owner's account
	group   int64   // a message's
	ends    instant // when it expires; a message's replies end with it; an account's: when it was last here, in Unix seconds
	replies int64   // a message's
	total   int64   // a group's: how many messages it has
	head    []byte  // what lists and look-ups need
	body    []byte  // what only the reader of this one record needs
}

// store keeps records. In commit mode a method that changes something returns
// when the change would survive a power cut; in periodic mode the savers do it
// within the period. Its errors are errNotFound, errFull, errBroken, or others
// with their cause.
type store interface {
	// load calls each with every account (without body), room, group and ban, at start;
	// a group whose messages are still being deleted has no head.
	load(k kind, each func(record) error) error
	// add stores a new record under the next number of its kind, which it sets.
	// A message's parent must be in its group and alive; it sets when it ends.
	add(r *record) error
	// replace stores an account or a room anew under its number; a head or a body
	// that is nil stays as it is.
	replace(r record) error
	// swap is replace for an account, unless its body is no longer what it was.
	swap(r record, was []byte) error
	// remove deletes a record; a group's messages go with it, by and by.
	remove(k kind, id int64) error
	// touch notes when an empty room or group ends, or when an account was last
	// here; the savers store it.
	touch(k kind, id int64, ends instant)
	// get finds an account or a message.
	get(k kind, id int64) (record, error)
	// list begins to list a group's messages: those that answer parent, or all
	// with parent listAll. What ends meanwhile stays on the list.
	list(group, parent int64) (*listing, error)
	// page is the next messages of a list, without body; none: it is done.
	page(l *listing) ([]record, error)
	// endList lets go of what list held.
	endList(l *listing)
	// purge deletes some messages that have ended, or whose group is deleted, and
	// says which, and when to come again.
	purge() (purged, error)
	// nextNumber is a status number that was never given before.
	nextNumber() int64
	// keepTime has the savers store the clock.
	keepTime()
	// heartbeat returns when the writer has come to it. It writes nothing.
	heartbeat()
	// stats is how the database is doing.
	stats() storeStats
	close() error
}

// listAll as a list's parent asks for all messages of the group.
const listAll = -1

// listing is a list of messages that is being read, as of one moment.
type listing struct {
	group, parent int64
	at            instant // what had ended by then is not on it
	upTo          int64   // the last number that can be on it
	after         int64   // the last number that was read
	count         int64   // how many messages are on it
}

// purged is what a purge did: of each deleted message kind, id, group, parent.
type purged struct {
	gone []record
	next instant // never: none
	more bool    // there is more to delete at once
	held bool    // what is left waits for a list to be read to its end
}

// packFields joins strings so that unpackFields finds them again.
func packFields(fields ...string) []byte {
	size := 0
	for _, f := range fields {
		size += len(f) + binary.MaxVarintLen16
	}
	b := make([]byte, 0, size)
	for _, f := range fields {
		b = binary.AppendUvarint(b, uint64(len(f)))
		b = append(b, f...)
	}
	return b
}

// The errors of a store that its users can do something about.
var (
	errNotFound = errors.New("there is no such record")
	errFull     = errors.New("there is no space to store anything")
	errBroken   = errors.New("the disk failed; nothing is saved any more") // the reason is in the log, once
)

var errBadRecord = errors.New("a stored record is damaged")

// unpackFields takes apart what packFields joined; there must be least fields
// or more.
func unpackFields(b []byte, least int) ([]string, error) {
	fields := make([]string, 0, max(least, 1))
	for len(b) > 0 {
		size, n := binary.Uvarint(b)
		if n <= 0 || size > uint64(len(b)-n) {
			return nil, errBadRecord
		}
		fields = append(fields, string(b[n:n+int(size)]))
		b = b[n+int(size):]
	}
	if len(fields) < least {
		return nil, errBadRecord
	}
	return fields, nil
}
