package main

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
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// certKeeper has the certificate for TLS. When a handshake comes, it looks now
// and then whether there is to be another one; an idle machine is not woken.
type certKeeper struct {
	every time.Duration
	look  func(now time.Time) (*tls.Certificate, error) // nil, nil: all is as it was
	pair  atomic.Pointer[tls.Certificate]

	mu     sync.Mutex // held by who looks; nobody waits for it
	looked time.Time
	failed string // what was wrong, and logged, last time
}

// certificate is the one to use now.
func (k *certKeeper) certificate(now time.Time) *tls.Certificate {
	if k.mu.TryLock() {
		defer k.mu.Unlock()
		if since := now.Sub(k.looked); since >= k.every || since < 0 {
			k.looked = now
			k.refresh(now)
		}
	}
	return k.pair.Load()
}

// refresh takes a new certificate if there is one. What is wrong with it is
// logged once, and the old one stays. k.mu is held.
func (k *certKeeper) refresh(now time.Time) {
	pair, err := k.look(now)
	if err != nil {
		if k.failed != err.Error() {
			slog.Warn("the TLS certificate stays as it is", "error", err)
		}
		k.failed = err.Error()
		return
	}
	if pair != nil {
		k.failed = ""
		k.pair.Store(pair)
		slog.Info("a new TLS certificate is in use", "fingerprint", certFingerprint(pair))
	}
}

// openCertificates finds or makes the certificate that the settings ask for.
func openCertificates(cfg *config, now time.Time) (*certKeeper, error) {
	var k *certKeeper
	if cfg.TLS.Cert != "" {
		files := &certFiles{cert: cfg.TLS.Cert, key: cfg.TLS.Key}
		k = &certKeeper{every: time.Second, look: files.look}
	} else {
		own, host := newOwnCert(cfg.Server.Data), cfg.foundHost()
		own.names = func() certNames { return machineNames().also(host) }
		k = &certKeeper{every: time.Minute, look: own.look}
	}
	pair, err := k.look(now)
	if err != nil && pair == nil {
		return nil, err
	}
	if err != nil {
		k.failed = err.Error()
	}
	k.pair.Store(pair)
	k.looked = now
	return k, nil
}

// certFiles is a certificate of the owner's, and its key. Changed files are taken
// over while the server runs.
type certFiles struct {
	cert, key string
	seen      string // the stamps of the files that were read last
}

// look reads the files if they are not those that were read last.
func (c *certFiles) look(time.Time) (*tls.Certificate, error) {
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

// certFingerprint is a certificate's SHA-256, as openssl shows it.
func certFingerprint(pair *tls.Certificate) string {
	sum := sha256.Sum256(pair.Certificate[0])
	return strings.ReplaceAll(fmt.Sprintf("% X", sum[:]), " ", ":")
}

// keyPin is the SHA-256 of a certificate's public key, as curl's --pinnedpubkey
// takes it. It stays when the server makes its certificate anew.
func keyPin(leaf *x509.Certificate) string {
	sum := sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
	return "sha256//" + base64.StdEncoding.EncodeToString(sum[:])
}

// readCertificate is the certificate that a server with these settings uses; nil:
// none has been made yet.
func readCertificate(cfg *config) (pair *tls.Certificate, path string, err error) {
	path, key := cfg.TLS.Cert, cfg.TLS.Key
	if path == "" {
		path = ownCertPath(cfg.Server.Data)
		key = path
	}
	loaded, err := tls.LoadX509KeyPair(path, key)
	switch {
	case err == nil:
		return &loaded, path, nil
	case errors.Is(err, fs.ErrNotExist) && cfg.TLS.Cert == "":
		return nil, path, nil
	}
	return nil, path, fmt.Errorf("cannot use the certificate %s: %w", path, err)
}
