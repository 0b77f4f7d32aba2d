// Package certs keeps the certificate that a server shows over TLS: the owner's,
// from two files that may be replaced at any time, or one that the server makes
// for itself.
//
// The one it makes is for every name and address of its machine, as the caller
// lists them, and is made anew when one is missing or the end comes near. Its key
// stays, so that those who trust the key do not notice. It begins in 1970, so that
// a machine without a clock can show it.
//
// A Keeper looks for changes when a handshake asks for the certificate, not by
// itself: an idle machine sleeps.
package certs

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"homeroom/datadir"
)

// File is the name of the file in which the server keeps a certificate of its own
// making, and its key.
const File = "tls.pem"

// Options says which certificate a server wants.
type Options struct {
	Cert, Key string       // the owner's files; "": the server makes one itself
	Folder    string       // in which that is kept
	Names     func() Names // the names that it is for
	Earliest  time.Time    // a clock that shows less is wrong
	Log       *slog.Logger
}

// path is the file that holds the certificate.
func (o *Options) path() string {
	if o.Cert != "" {
		return o.Cert
	}
	return filepath.Join(o.Folder, File)
}

// Keeper has the certificate for TLS. Its methods may be called by several
// goroutines at once.
type Keeper struct {
	// fixed when it is opened
	log   *slog.Logger
	every time.Duration
	look  func(now time.Time) (*tls.Certificate, error) // nil, nil: all is as it was

	pair atomic.Pointer[tls.Certificate] // for every handshake

	mu     sync.Mutex // held while one goroutine looks; nobody waits for it
	looked time.Time
	failed string // the error that was logged last
}

// Open finds or makes the certificate that is wanted. One that was damaged, or
// cannot be made anew, is logged.
func Open(o Options, now time.Time) (*Keeper, error) {
	k := &Keeper{log: o.Log, looked: now}
	if o.Cert != "" {
		given := &givenCert{cert: o.Cert, key: o.Key}
		k.every, k.look = time.Second, given.look
	} else {
		k.every, k.look = time.Minute, newOwnCert(o).look
	}
	pair, err := k.look(now)
	if err != nil && pair == nil {
		return nil, err
	}
	if err != nil {
		k.failed = err.Error()
		k.log.Warn(k.failed)
	}
	k.pair.Store(pair)
	return k, nil
}

// Get returns the certificate to use now. Now and then it looks first whether there
// is to be another one.
func (k *Keeper) Get(now time.Time) *tls.Certificate {
	if k.mu.TryLock() {
		defer k.mu.Unlock()
		if since := now.Sub(k.looked); since >= k.every || since < 0 {
			k.looked = now
			k.refresh(now)
		}
	}
	return k.pair.Load()
}

// refresh takes a new certificate if there is one. If something is wrong with it, that
// is logged once, and the old one stays. k.mu is held.
func (k *Keeper) refresh(now time.Time) {
	pair, err := k.look(now)
	if err != nil {
		if k.failed != err.Error() {
			k.log.Warn("the TLS certificate stays as it is", "error", err)
		}
		k.failed = err.Error()
		return
	}
	if pair != nil {
		k.failed = ""
		k.pair.Store(pair)
		k.log.Info("a new TLS certificate is in use", "fingerprint", Fingerprint(pair))
	}
}

// givenCert is a certificate of the owner's, and its key. Changed files are taken
// over while the server runs.
type givenCert struct {
	cert, key string
	seen      string // the stamps of the files that were read last
}

// look reads the files if they are not those that were read last.
func (c *givenCert) look(time.Time) (*tls.Certificate, error) {
	stamp := fileStamp(c.cert) + fileStamp(c.key)
	if stamp == c.seen {
		return nil, nil
	}
	c.seen = stamp // also if they are broken: that is told once
	pair, err := tls.LoadX509KeyPair(c.cert, c.key)
	if err != nil {
		return nil, fmt.Errorf("cannot use the certificate %s with the key %s: %w", c.cert, c.key, err)
	}
	return &pair, nil
}

// fileStamp changes when a file does.
func fileStamp(path string) string {
	info, err := os.Stat(path)
	if err != nil {
		return "none;"
	}
	return fmt.Sprintf("%d %d %d;", info.ModTime().UnixNano(), info.Size(), inode(info))
}

// inode is a file's number: a file that was put in another's place has its own.
func inode(info fs.FileInfo) uint64 {
	if sys, ok := info.Sys().(*syscall.Stat_t); ok {
		return sys.Ino
	}
	return 0
}

// Fingerprint is a certificate's SHA-256, as openssl shows it.
func Fingerprint(pair *tls.Certificate) string {
	sum := sha256.Sum256(pair.Certificate[0])
	return strings.ReplaceAll(fmt.Sprintf("% X", sum[:]), " ", ":")
}

// Pin is the SHA-256 of a certificate's public key, as curl's --pinnedpubkey
// takes it. It stays when the server makes its certificate anew.
func Pin(leaf *x509.Certificate) string {
	sum := sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
	return "sha256//" + base64.StdEncoding.EncodeToString(sum[:])
}

// Read returns the certificate that a server with these options shows, and its
// file; nil: none has been made yet.
func Read(o Options) (pair *tls.Certificate, path string, err error) {
	path = o.path()
	var loaded tls.Certificate
	if o.Cert != "" {
		loaded, err = tls.LoadX509KeyPair(path, o.Key)
	} else {
		var text []byte
		if text, err = datadir.ReadFile(path); err == nil {
			loaded, err = tls.X509KeyPair(text, text)
		}
	}
	switch {
	case err == nil:
		return &loaded, path, nil
	case errors.Is(err, fs.ErrNotExist) && o.Cert == "":
		return nil, path, nil
	}
	return nil, path, fmt.Errorf("cannot use the certificate %s: %w", path, err)
}

// Try finds out whether Open would succeed, and changes nothing. One of the server's
// own that is damaged would be made anew.
func Try(o Options) error {
	if o.Cert != "" {
		_, _, err := Read(o)
		return err
	}
	if _, err := datadir.ReadFile(o.path()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot read the TLS certificate: %w", err)
	}
	return nil
}
