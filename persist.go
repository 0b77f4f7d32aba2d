package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
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
// within the period. Its errors are statusLimit (disk full), statusNotFound, or
// statusUnknown with the cause.
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

// folderLock is the lock on a data folder; it goes with the process.
type folderLock struct{ file *os.File }

const lockFile = "lock"

// inUseError is that another process has a data folder.
type inUseError struct{ owner, folder string }

func (e *inUseError) Error() string {
	return fmt.Sprintf("another homeroom, process %s, uses the data folder %s; stop it first, or give this one another folder with -data",
		e.owner, e.folder)
}

// lockFolder makes the data folder and takes it for this process. A folder that
// another process has is refused, with that process's number.
func lockFolder(folder string) (*folderLock, error) {
	if err := makeFolder(folder); err != nil {
		return nil, fmt.Errorf("cannot make the data folder: %w", err)
	}
	path := filepath.Join(folder, lockFile)
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cannot write to the data folder: %w", err)
	}
	if err := takeLock(file); err != nil {
		defer file.Close()
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("cannot lock the data folder %s: %w", folder, err)
		}
		owner, _ := os.ReadFile(path)
		return nil, &inUseError{strings.TrimSpace(string(owner)), folder}
	}
	err = errors.Join(file.Truncate(0), writeAt(file, fmt.Sprintf("%d\n", os.Getpid())))
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("cannot write to the data folder: %w", err)
	}
	return &folderLock{file}, nil
}

// takeLock locks the file for this process. It tries for a moment: who asks for
// the status holds the lock while it looks.
func takeLock(file *os.File) error {
	const tries, pause = 5, 20 * time.Millisecond
	for try := 1; ; try++ {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if try == tries || !errors.Is(err, syscall.EWOULDBLOCK) {
			return err
		}
		time.Sleep(pause)
	}
}

// folderUser is the number of the process that has a data folder; "": none has.
func folderUser(folder string) (process string, err error) {
	path := filepath.Join(folder, "lock")
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("cannot see whether a server runs: %w", err)
	}
	defer file.Close()
	err = syscall.Flock(int(file.Fd()), syscall.LOCK_SH|syscall.LOCK_NB)
	if err == nil {
		return "", nil
	}
	if !errors.Is(err, syscall.EWOULDBLOCK) {
		return "", fmt.Errorf("cannot see whether a server runs: locking %s: %w", path, err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("cannot see which process runs the server: %w", err)
	}
	if process = strings.TrimSpace(string(text)); process == "" {
		process = "unknown" // it is about to write it
	}
	return process, nil
}

func writeAt(file *os.File, text string) error {
	_, err := file.WriteAt([]byte(text), 0)
	return err
}

// release gives the folder back. To close the file would not do while a process
// that is just being started still has it open too.
func (l *folderLock) release() error {
	err := giveToOwner(filepath.Dir(l.file.Name()))
	return errors.Join(err, syscall.Flock(int(l.file.Fd()), syscall.LOCK_UN), l.file.Close())
}
