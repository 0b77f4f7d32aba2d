package store

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"syscall"
	"unicode/utf8"

	"golang.org/x/crypto/argon2"

	"homeroom/datadir"
)

const (
	KeyFile        = "homeroom.key"
	askForKey      = "ask" // as server.key: the key comes from a passphrase
	askTries       = 3
	minPassphrase  = 12 // characters
	passphraseSalt = 16 // bytes
)

// Asker asks for a passphrase in the terminal.
type Asker func(prompt string) (string, error)

// argonCost is what deriving a key from a passphrase costs (RFC 9106).
type argonCost struct {
	passes, memory uint32 // memory in KiB
	lanes          uint8
}

// usualCost is the second choice of RFC 9106 section 4: 64 MiB, which a small Pi
// has.
var usualCost = argonCost{passes: 3, memory: 64 << 10, lanes: 4}

// derive makes a key of a passphrase.
func (c argonCost) derive(passphrase string, salt []byte) []byte {
	return argon2.IDKey([]byte(passphrase), salt, c.passes, c.memory, c.lanes, masterBytes)
}

// bearable reports whether a cost from a database is one that a program made.
func (c argonCost) bearable() bool {
	return c.passes >= 1 && c.passes <= 100 && c.memory >= 8 && c.memory <= 1<<20 && c.lanes >= 1
}

// Key is what the database says of a key.
type Key struct {
	Number  uint32
	mark    []byte // tells a right key from a wrong one
	wrapped []byte // the key, sealed with the next one, while both are needed
	salt    []byte // of the passphrase; empty: the key is in a file
	cost    argonCost
	clean   bool // nothing of before it is left in the file's free space
}

// Keys reads what a database says of its keys, the oldest first; nothing
// where it is not sealed yet. It changes nothing.
func Keys(path string) (rows []Key, err error) {
	db, err := openUntouched(path)
	if err != nil {
		return nil, err
	}
	defer db.Close()
	return keyRowsOf(db)
}

// keyRowsOf is readKeyRows on an open database.
func keyRowsOf(db querier) (rows []Key, err error) {
	var known bool
	err = db.QueryRow("SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'keys'").Scan(&known)
	if err != nil || !known {
		return nil, err
	}
	found, err := db.Query("SELECT number, mark, wrapped, salt, passes, memory, lanes, clean FROM keys ORDER BY number")
	if err != nil {
		return nil, err
	}
	defer found.Close()
	for found.Next() {
		var r Key
		err := found.Scan(&r.Number, &r.mark, &r.wrapped, &r.salt, &r.cost.passes, &r.cost.memory, &r.cost.lanes, &r.clean)
		if err != nil {
			return nil, err
		}
		rows = append(rows, r)
	}
	return rows, found.Err()
}

// KeySource is where the master key comes from: a file, or a passphrase.
type KeySource struct {
	Path   string // of the file; "": a passphrase
	fixed  bool   // the file is systemd's to make and to protect
	own    bool   // the file is in the data folder, where no link is followed
	ask    Asker  // nil: there is no terminal
	cost   argonCost
	Derive NewCipher // the ciphers of what is sealed
}

// NewKeySource finds out where the key of a data folder is to come from.
func NewKeySource(setting, folder string, ask Asker, derive NewCipher) KeySource {
	switch setting {
	case askForKey:
		return KeySource{ask: ask, cost: usualCost, Derive: derive}
	case "":
	default:
		return KeySource{Path: setting, own: sameFolder(filepath.Dir(setting), folder), Derive: derive}
	}
	if credentials := os.Getenv("CREDENTIALS_DIRECTORY"); credentials != "" {
		path := filepath.Join(credentials, KeyFile)
		if _, err := os.Stat(path); err == nil {
			return KeySource{Path: path, fixed: true, Derive: derive}
		}
	}
	return KeySource{Path: filepath.Join(folder, KeyFile), own: true, Derive: derive}
}

// sameFolder reports whether two names are those of one folder.
func sameFolder(a, b string) bool {
	one, errA := os.Stat(a)
	other, errB := os.Stat(b)
	return errA == nil && errB == nil && os.SameFile(one, other)
}

// reach does something with the file of the key, with the rights that this takes.
func (src KeySource) reach(do func() error) error {
	if src.own {
		return do()
	}
	return datadir.Named(src.Path, do)
}

// first is the key of a database that has none yet.
func (src KeySource) first() (masterKey, Key, error) {
	if src.Path == "" {
		return src.newPassphrase(1)
	}
	secret, err := src.read(src.Path)
	if errors.Is(err, fs.ErrNotExist) && !src.fixed {
		secret = random(masterBytes)
		err = src.write(src.Path, secret)
	}
	if err != nil {
		return masterKey{}, Key{}, err
	}
	key := masterKey{1, secret, src.Derive}
	row, err := key.row()
	return key, row, err
}

// random returns n random bytes.
func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // it never fails (crypto/rand)
	return b
}

// row is what the database is to say of a key from a file.
func (m masterKey) row() (Key, error) {
	mark, err := m.keyMark()
	return Key{Number: m.number, mark: mark, clean: true}, err
}

// unlock finds the keys that a database says it is sealed with. Where the last
// one is known, the others are in the database.
func (src KeySource) unlock(rows []Key) ([]masterKey, error) {
	last := rows[len(rows)-1]
	key, err := src.find(last, len(rows) > 1)
	if err != nil {
		return nil, err
	}
	var keys []masterKey
	for _, row := range rows[:len(rows)-1] {
		older, err := key.unwrap(row.Number, row.wrapped)
		if err != nil {
			return nil, err
		}
		keys = append(keys, older)
	}
	return append(keys, key), nil
}

// find finds the key that a row tells of.
func (src KeySource) find(row Key, changing bool) (masterKey, error) {
	switch {
	case src.Path == "" && len(row.salt) == 0:
		return masterKey{}, errors.New(`the data is sealed with a key from a file, not with a passphrase; have server.key name that file`)
	case src.Path != "" && len(row.salt) > 0:
		return masterKey{}, errors.New(`the data is sealed with a passphrase, not with a key from a file; set server.key to "ask"`)
	case src.Path == "":
		return src.askPassphrase(row, changing)
	}
	return src.findFile(row)
}

// findFile takes the key from its file, or from where an interrupted change of
// the key has put the new one.
func (src KeySource) findFile(row Key) (masterKey, error) {
	secret, err := src.read(src.Path)
	if key := (masterKey{row.Number, secret, src.Derive}); err == nil && key.fits(row.mark) {
		return key, nil
	}
	next, errNext := src.read(src.next())
	if key := (masterKey{row.Number, next, src.Derive}); errNext == nil && key.fits(row.mark) {
		return key, nil
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return masterKey{}, fmt.Errorf("the key %s is missing, and without it the data cannot be read; put it back (server.key says where it is)", src.Path)
	case err != nil:
		return masterKey{}, err
	}
	return masterKey{}, fmt.Errorf("the key %s is not the one that the data is sealed with (key %d); put the right one there", src.Path, row.Number)
}

// next is where a new key waits until the database knows it.
func (src KeySource) next() string { return src.Path + ".new" }

// open opens a file of keys for reading.
func (src KeySource) open(path string) (f *os.File, err error) {
	err = src.reach(func() (err error) {
		if src.own {
			f, err = datadir.Open(path, os.O_RDONLY)
		} else {
			f, err = datadir.OpenNamed(path)
		}
		return err
	})
	return f, err
}

// read reads a key file, which must be nobody else's to read.
func (src KeySource) read(path string) ([]byte, error) {
	f, err := src.open(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read the key: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("cannot read the key: %w", err)
	}
	if others := info.Mode().Perm() & 0o077; others != 0 && !src.fixed {
		return nil, fmt.Errorf("the key %s can be read by others (mode %04o); do: chmod 600 %s", path, info.Mode().Perm(), path)
	}
	secret, err := io.ReadAll(io.LimitReader(f, masterBytes+1))
	if err != nil {
		return nil, fmt.Errorf("cannot read the key: %w", err)
	}
	if len(secret) != masterBytes || info.Size() > masterBytes {
		return nil, fmt.Errorf("the file %s is no key: it must have %d bytes and has %d", path, masterBytes, info.Size())
	}
	return secret, nil
}

// askPassphrase asks until the passphrase is right, a few times.
func (src KeySource) askPassphrase(row Key, changing bool) (masterKey, error) {
	if !row.cost.bearable() {
		return masterKey{}, fmt.Errorf("what the database says of its passphrase is damaged: %+v", row.cost)
	}
	prompt := "Passphrase of the data: "
	if changing {
		prompt = "New passphrase of the data (its change was interrupted): "
	}
	for range askTries {
		passphrase, err := src.askFor(prompt)
		if err != nil {
			return masterKey{}, err
		}
		if key := (masterKey{row.Number, row.cost.derive(passphrase, row.salt), src.Derive}); key.fits(row.mark) {
			return key, nil
		}
		prompt = "That was not it. Passphrase of the data: "
	}
	return masterKey{}, errors.New("the passphrase is wrong; nothing was changed")
}

// newPassphrase asks for a passphrase that is to become a key, twice.
func (src KeySource) newPassphrase(number uint32) (masterKey, Key, error) {
	none := masterKey{}
	passphrase, err := src.askFor(fmt.Sprintf("New passphrase for the data, %d characters or more; without it nobody can read the data: ", minPassphrase))
	if err != nil {
		return none, Key{}, err
	}
	if utf8.RuneCountInString(passphrase) < minPassphrase {
		return none, Key{}, fmt.Errorf("the passphrase must have %d characters or more; nothing was changed", minPassphrase)
	}
	again, err := src.askFor("The same again: ")
	if err != nil {
		return none, Key{}, err
	}
	if again != passphrase {
		return none, Key{}, errors.New("the two passphrases are not the same; nothing was changed")
	}
	salt := random(passphraseSalt)
	key := masterKey{number, src.cost.derive(passphrase, salt), src.Derive}
	row, err := key.row()
	row.salt, row.cost = salt, src.cost
	return key, row, err
}

// askFor asks in the terminal.
func (src KeySource) askFor(prompt string) (string, error) {
	if src.ask == nil {
		return "", errors.New(`server.key is "ask", and there is no terminal to ask for the passphrase in; start it in one, or have server.key name a file`)
	}
	answer, err := src.ask(prompt)
	if err != nil {
		return "", fmt.Errorf("asking for the passphrase: %w", err)
	}
	return answer, nil
}

// write writes a key; it is whole under its name, and on the disk, before anything is
// sealed with it. It belongs to whom the key belongs that is there or, if there is
// none, to the owner of the data folder: the server must be able to read it.
func (src KeySource) write(path string, secret []byte) error {
	user, group := os.Geteuid(), os.Getegid()
	err := src.reach(func() error {
		if there, err := os.Stat(src.Path); err == nil {
			stat := there.Sys().(*syscall.Stat_t)
			user, group = int(stat.Uid), int(stat.Gid)
		}
		if err := datadir.WriteFile(path, bytes.NewReader(secret), 0o600); err != nil || os.Geteuid() != 0 {
			return err
		}
		return os.Lchown(path, user, group)
	})
	if err != nil {
		return fmt.Errorf("cannot write the key %s: %w", path, err)
	}
	return nil
}

// Try finds out whether a server could open the database of a folder with a key, if
// need be while another one uses it, and changes nothing.
func Try(folder string, src KeySource) error {
	path := filepath.Join(folder, DatabaseFile)
	if err := guard(path); err != nil {
		return err
	}
	err := checkHeader(path)
	if errors.Is(err, fs.ErrNotExist) {
		if src.Path == "" {
			_, err = src.askFor("")
		} else if _, err = src.read(src.Path); errors.Is(err, fs.ErrNotExist) && !src.fixed {
			err = nil // a start makes both
		}
		return err
	}
	if err != nil {
		return err
	}
	db, err := openURI(path, url.Values{"mode": {"ro"}, "_pragma": {"busy_timeout(5000)"}})
	if err != nil {
		return err
	}
	defer db.Close()
	rows, err := keyRowsOf(db)
	if err != nil {
		return fmt.Errorf("opening the database %s: %w", path, err)
	}
	if len(rows) > 0 {
		_, err = src.unlock(rows)
	}
	return err
}
