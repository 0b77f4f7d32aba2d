package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// A sealed column is: format (1 byte), number of the key (4 bytes), nonce (12),
// what was sealed with AES-256-GCM, tag (16). Format, key number, the record's
// number, its table and the column's name are authenticated with it, so that
// what was copied to another place does not open there. So are, since format 2, the
// numbers that stand beside it in clear: a message's group, parent and end, a room's
// or group's owner and end, a ban's end. Columns of format 1 are read until a change
// of the key, or of the record, seals them anew.
const (
	firstFormat = 1
	sealFormat  = 2
	sealHeader  = 1 + 4
	masterBytes = 32
)

// column is one of the columns that are sealed.
type column uint8

const (
	columnHead column = iota
	columnBody
)

// String names a column as the database does.
func (c column) String() string { return [...]string{"head", "body"}[c] }

// Cipher seals what is stored and opens it again. Its place is authenticated with
// it. Seal appends to dst; Open works in sealed's own memory. Any
// number of goroutines may use one.
type Cipher interface {
	Seal(dst, clear, place []byte) []byte
	Open(sealed, place []byte) ([]byte, error)
}

// NewCipher makes the cipher for one purpose out of a secret: no two purposes share a key.
type NewCipher func(secret []byte, purpose string) (Cipher, error)

// masterKey is a key that all others are derived from.
type masterKey struct {
	number uint32 // as sealed columns name it
	secret []byte
	derive NewCipher
}

// keyRing is the ciphers of all keys that a database is sealed with: one key,
// or two while a change of the key is not finished. It never changes.
type keyRing struct {
	current uint32 // what is sealed with
	ciphers map[uint32]*[Kinds]Cipher
}

// newKeyRing makes every cipher once. The last key is the one to seal with.
func newKeyRing(keys []masterKey) (*keyRing, error) {
	ring := &keyRing{ciphers: map[uint32]*[Kinds]Cipher{}}
	for _, key := range keys {
		tables := new([Kinds]Cipher)
		for k := range Kinds {
			var err error
			if tables[k], err = key.derive(key.secret, k.table()); err != nil {
				return nil, err
			}
		}
		ring.ciphers[key.number], ring.current = tables, key.number
	}
	return ring, nil
}

// sealer seals and opens records, for one goroutine: it works in memory that it
// uses again.
type sealer struct {
	ring  *keyRing
	extra []byte // what is authenticated
	out   []byte // what was sealed last
}

// keepSealed is how much memory a sealer keeps for the next record.
const keepSealed = 64 << 10

// Record seals a record's columns; they hold until the next call. A column that
// is missing stays missing.
func (s *sealer) record(r *Record) (head, body []byte) {
	if cap(s.out) > keepSealed {
		s.out = nil
	}
	s.out = s.out[:0]
	return s.seal(r, columnHead, r.Head), s.seal(r, columnBody, r.Body)
}

// seal seals one column behind what is in s.out already.
func (s *sealer) seal(r *Record, c column, clear []byte) []byte {
	if clear == nil {
		return nil
	}
	start := len(s.out)
	s.out = append(s.out, sealFormat)
	s.out = binary.BigEndian.AppendUint32(s.out, s.ring.current)
	s.authenticate(s.out[start:], r, c)
	s.out = s.ring.ciphers[s.ring.current][r.Kind].Seal(s.out, clear, s.extra)
	return slices.Clip(s.out[start:])
}

// authenticate sets what is authenticated with a column, which starts with its
// header.
func (s *sealer) authenticate(header []byte, r *Record, c column) {
	s.extra = append(s.extra[:0], header[:sealHeader]...)
	s.extra = binary.BigEndian.AppendUint64(s.extra, uint64(r.ID))
	s.extra = append(append(append(s.extra, r.Kind.table()...), '.'), c.String()...)
	if header[0] == firstFormat {
		return
	}
	switch r.Kind {
	case Message:
		s.extra = binary.BigEndian.AppendUint64(s.extra, uint64(r.Group))
		fallthrough
	case Room, Group:
		s.extra = binary.BigEndian.AppendUint64(s.extra, uint64(r.Parent))
		fallthrough
	case Ban:
		s.extra = binary.BigEndian.AppendUint64(s.extra, uint64(r.Ends))
	}
}

// Open opens a record's columns in place, as they came from the database.
func (s *sealer) open(r *Record) (err error) {
	if r.Head, err = s.openColumn(r, columnHead, r.Head); err != nil {
		return err
	}
	r.Body, err = s.openColumn(r, columnBody, r.Body)
	return err
}

var errNotSealed = errors.New("is not sealed")

// openColumn opens one column in its own memory.
func (s *sealer) openColumn(r *Record, c column, sealed []byte) ([]byte, error) {
	if sealed == nil {
		return nil, nil
	}
	number, err := sealedWith(sealed)
	if err != nil {
		return nil, fmt.Errorf("the %s of %s %d %w", c, r.Kind, r.ID, err)
	}
	ciphers := s.ring.ciphers[number]
	if ciphers == nil {
		return nil, fmt.Errorf("the %s of %s %d is sealed with key %d, which is not there", c, r.Kind, r.ID, number)
	}
	s.authenticate(sealed, r, c)
	clear, err := ciphers[r.Kind].Open(sealed[sealHeader:], s.extra)
	if err != nil {
		return nil, fmt.Errorf("the %s of %s %d does not open with key %d: it is damaged, or was moved or changed by hand", c, r.Kind, r.ID, number)
	}
	return clear, nil
}

// sealedWith is the number of the key that a column is sealed with.
func sealedWith(sealed []byte) (uint32, error) {
	if len(sealed) < sealHeader || sealed[0] < firstFormat || sealed[0] > sealFormat {
		return 0, errNotSealed
	}
	return binary.BigEndian.Uint32(sealed[1:]), nil
}

// keyMark is what tells, in the database, a right key from a wrong one.
func (m masterKey) keyMark() ([]byte, error) {
	check, err := m.derive(m.secret, "check")
	if err != nil {
		return nil, err
	}
	return check.Seal(nil, nil, m.header()), nil
}

// fits reports whether a mark is this key's.
func (m masterKey) fits(mark []byte) bool {
	check, err := m.derive(m.secret, "check")
	if err != nil {
		return false
	}
	_, err = check.Open(slices.Clone(mark), m.header())
	return err == nil
}

// wrap seals another key with this one, so that the newer key opens the older one
// while both are needed.
func (m masterKey) wrap(other masterKey) ([]byte, error) {
	wrapper, err := m.derive(m.secret, "wrap")
	if err != nil {
		return nil, err
	}
	return wrapper.Seal(nil, other.secret, other.header()), nil
}

// unwrap opens what wrap sealed.
func (m masterKey) unwrap(number uint32, wrapped []byte) (masterKey, error) {
	other := masterKey{number: number, derive: m.derive}
	wrapper, err := m.derive(m.secret, "wrap")
	if err != nil {
		return other, err
	}
	other.secret, err = wrapper.Open(slices.Clone(wrapped), other.header())
	if err != nil {
		return other, fmt.Errorf("key %d, which is kept sealed with key %d, does not open: it is damaged", number, m.number)
	}
	return other, nil
}

// header is how a key's number is authenticated.
func (m masterKey) header() []byte {
	return binary.BigEndian.AppendUint32([]byte{firstFormat}, m.number)
}
