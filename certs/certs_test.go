package certs

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"homeroom/datadir"
)

// someDay is a day on which a test's certificates are made.
var someDay = time.Date(2027, 3, 4, 5, 6, 7, 0, time.UTC)

// earliest is what a clock that is right can show.
var earliest = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// namesOf makes the names of a machine that has these addresses.
func namesOf(ips ...string) func() Names {
	return func() Names {
		n := Names{Hosts: []string{"pi", "pi.local", "localhost"}}
		for _, ip := range ips {
			n.Addrs = append(n.Addrs, netip.MustParseAddr(ip))
		}
		return n
	}
}

// ownOptions asks for a certificate that the server makes, on a machine with these
// addresses.
func ownOptions(folder string, ips ...string) Options {
	return Options{Folder: folder, Names: namesOf(ips...), Earliest: earliest, Log: slog.New(slog.DiscardHandler)}
}

// ownIn is the certificate of a server on a folder, on a machine with these
// addresses, as it comes at a start.
func ownIn(t testing.TB, folder string, now time.Time, ips ...string) *tls.Certificate {
	t.Helper()
	pair, err := newOwnCert(ownOptions(folder, ips...)).look(now)
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

// TestOwnCert: what the server makes for itself.
func TestOwnCert(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	pair, err := newOwnCert(ownOptions(folder, "127.0.0.1", "::1", "192.0.2.1")).look(someDay)
	if err != nil {
		t.Fatal(err)
	}
	leaf := pair.Leaf
	if key, ok := leaf.PublicKey.(*ecdsa.PublicKey); !ok || key.Curve != elliptic.P256() {
		t.Errorf("the key is a %T, want ECDSA P-256", leaf.PublicKey)
	}
	if leaf.NotBefore.Year() != 1970 || !leaf.NotAfter.Equal(someDay.AddDate(10, 0, 0)) || leaf.IsCA {
		t.Errorf("from %v to %v, CA: %v", leaf.NotBefore, leaf.NotAfter, leaf.IsCA)
	}
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	names := []string{"pi", "pi.local", "localhost", "127.0.0.1", "::1", "192.0.2.1"}
	for _, name := range names {
		for _, when := range []time.Time{time.Unix(1000, 0), someDay, someDay.AddDate(9, 11, 0)} {
			if _, err := leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: roots, CurrentTime: when}); err != nil {
				t.Errorf("as %s, in %d: %v", name, when.Year(), err)
			}
		}
	}
	info, err := os.Stat(filepath.Join(folder, File))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file: %v, %v; want 0600", info.Mode(), err)
	}
	if files, _ := os.ReadDir(folder); len(files) != 1 {
		t.Errorf("%d files were left, want 1", len(files))
	}
}

// TestOwnCertRenewed: when it is made anew at a start, and what it keeps.
func TestOwnCertRenewed(t *testing.T) {
	t.Parallel()
	ends := someDay.AddDate(10, 0, 0)
	for name, test := range map[string]struct {
		now   time.Time
		ips   []string
		fresh bool
		until time.Time
	}{
		"nothing has changed":    {someDay.AddDate(1, 0, 0), []string{"10.0.0.1", "fd00::1"}, false, ends},
		"31 days before its end": {ends.AddDate(0, 0, -31), []string{"10.0.0.1"}, false, ends},
		"29 days before its end": {ends.AddDate(0, 0, -29), []string{"10.0.0.1"}, true, ends.AddDate(10, 0, -29)},
		"after its end":          {ends.AddDate(1, 0, 0), []string{"10.0.0.1"}, true, ends.AddDate(11, 0, 0)},
		"the clock is in 1970":   {time.Unix(60, 0), []string{"10.0.0.1"}, false, ends},
		"an address has gone":    {someDay, []string{"10.0.0.1"}, false, ends},
		"an address has come":    {someDay, []string{"10.0.0.1", "10.0.0.2"}, true, ends},
		"another, in 1970":       {time.Unix(60, 0), []string{"10.0.0.2"}, true, earliest.AddDate(10, 0, 0)},
		"another one, of IPv6":   {someDay, []string{"fe80::1"}, true, ends},
	} {
		folder := t.TempDir()
		first := ownIn(t, folder, someDay, "10.0.0.1", "fd00::1")
		second := ownIn(t, folder, test.now, test.ips...)
		if fresh := Fingerprint(first) != Fingerprint(second); fresh != test.fresh {
			t.Errorf("%s: made anew: %v, want %v", name, fresh, test.fresh)
		}
		if Pin(first.Leaf) != Pin(second.Leaf) {
			t.Errorf("%s: the key has changed", name)
		}
		if !second.Leaf.NotAfter.Equal(test.until) {
			t.Errorf("%s: it ends %v, want %v", name, second.Leaf.NotAfter, test.until)
		}
		for _, ip := range append(test.ips, "10.0.0.1", "fd00::1") { // the old ones stay
			if err := second.Leaf.VerifyHostname(ip); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if third := ownIn(t, folder, test.now, test.ips...); Fingerprint(third) != Fingerprint(second) {
			t.Errorf("%s: the next start makes another one", name)
		}
	}
}

// TestOwnCertWhileRunning: an address that comes later is in the certificate
// within a minute of handshakes, and without handshakes nothing is looked at.
func TestOwnCertWhileRunning(t *testing.T) {
	t.Parallel()
	folder, looks := t.TempDir(), 0
	ips := []string{"10.0.0.1"}
	o := ownOptions(folder)
	o.Names = func() Names { looks++; return namesOf(ips...)() }
	k, err := Open(o, someDay)
	if err != nil {
		t.Fatal(err)
	}
	first := k.Get(someDay)
	ips = []string{"10.0.0.2"}
	if k.Get(someDay.Add(59*time.Second)) != first || looks != 1 {
		t.Errorf("looked %d times within a minute", looks)
	}
	second := k.Get(someDay.Add(time.Minute))
	if err := second.Leaf.VerifyHostname("10.0.0.2"); err != nil {
		t.Error(err)
	}
	if k.Get(someDay.AddDate(9, 10, 0)) != second {
		t.Error("made anew a month before its end")
	}
	if third := k.Get(someDay.AddDate(9, 11, 5)); third == second {
		t.Error("not made anew less than 30 days before its end")
	}
	if k.Get(someDay); looks != 5 { // the clock was set back: a look is better than none for years
		t.Errorf("looked %d times, want 5", looks)
	}
}

// TestOwnCertDamaged: a damaged file is put aside, and there is a new one.
func TestOwnCertDamaged(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	ownIn(t, folder, someDay, "10.0.0.1")
	path := filepath.Join(folder, File)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, whole[:len(whole)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	o := ownOptions(folder, "10.0.0.1")
	k, err := Open(o, someDay)
	if err != nil || k.pair.Load() == nil || !strings.Contains(k.failed, "was damaged") {
		t.Fatalf("got %v, %+v", err, k)
	}
	aside, err := os.ReadFile(path + ".damaged")
	if err != nil || !bytes.Equal(aside, whole[:len(whole)/2]) {
		t.Errorf("the damaged one is not put aside: %v", err)
	}
	if k, err = Open(o, someDay); err != nil || k.failed != "" {
		t.Errorf("the next start: %v, %q", err, k.failed)
	}
}

// TestOwnCertNotStored: what cannot be stored is no certificate; an old one
// goes on.
func TestOwnCertNotStored(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	if err := os.MkdirAll(filepath.Join(filepath.Join(folder, File)+".tmp", "in the way"), 0o700); err != nil {
		t.Fatal(err)
	}
	c := newOwnCert(ownOptions(folder))
	if pair, err := c.look(someDay); pair != nil || err == nil || !strings.Contains(err.Error(), "cannot make the TLS certificate "+folder) {
		t.Errorf("got %v, %v", pair, err)
	}
	full := t.TempDir()
	first := ownIn(t, full, someDay, "10.0.0.1")
	if err := os.MkdirAll(filepath.Join(filepath.Join(full, File)+".tmp", "in the way"), 0o700); err != nil {
		t.Fatal(err)
	}
	c = newOwnCert(ownOptions(full, "10.0.0.2"))
	if pair, err := c.look(someDay); err == nil || Fingerprint(pair) != Fingerprint(first) {
		t.Errorf("the old one does not go on: %v, %v", pair, err)
	}
}

// TestManyAddresses: a machine that travels does not get an endless certificate.
func TestManyAddresses(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	ip := netip.MustParseAddr("10.0.0.1")
	var last *tls.Certificate
	for range 2 * mostNames {
		last = ownIn(t, folder, someDay, ip.String())
		ip = ip.Next()
	}
	if n := len(last.Leaf.IPAddresses); n != mostNames {
		t.Errorf("%d addresses, want %d", n, mostNames)
	}
	if err := last.Leaf.VerifyHostname(ip.Prev().String()); err != nil {
		t.Error(err)
	}
}

// newPair makes a certificate of an owner's own, with its key.
func newPair(t testing.TB, host string) (text []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if text, err = makeCertificate(key, Names{Hosts: []string{host}}, someDay); err != nil {
		t.Fatal(err)
	}
	return text
}

// put writes a file in another's place, as programs that renew certificates do.
func put(t testing.TB, path string, text []byte) {
	t.Helper()
	if err := datadir.WriteFile(path, bytes.NewReader(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestCertFiles: changed files are taken over, once a second; a broken pair is
// told once and the old one stays.
func TestCertFiles(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	o := Options{Cert: filepath.Join(t.TempDir(), "cert.pem"), Key: filepath.Join(t.TempDir(), "key.pem"), Log: slog.New(slog.NewTextHandler(&log, nil))}
	first, second := newPair(t, "first"), newPair(t, "second")
	put(t, o.Cert, first)
	put(t, o.Key, first)
	now := someDay
	k, err := Open(o, now)
	if err != nil {
		t.Fatal(err)
	}
	after := func(d time.Duration, want string) {
		t.Helper()
		now = now.Add(d)
		if got := k.Get(now).Leaf.DNSNames; !slices.Equal(got, []string{want}) {
			t.Errorf("%v later it is the certificate of %v, want %s", d, got, want)
		}
	}
	after(time.Second, "first")
	put(t, o.Cert, second) // its key is to come: this is no pair
	after(time.Second-1, "first")
	if log.Len() > 0 {
		t.Errorf("looked before a second had passed: %s", log.String())
	}
	for range 3 {
		after(time.Second, "first")
	}
	if n := strings.Count(log.String(), "level=WARN"); n != 1 || !strings.Contains(log.String(), o.Cert) {
		t.Errorf("the broken pair is told %d times, want once: %s", n, log.String())
	}
	put(t, o.Key, second)
	after(time.Second, "second")
	for range 2 {
		if err := os.Remove(o.Key); err != nil {
			t.Fatal(err)
		}
		after(time.Second, "second")
		put(t, o.Key, second)
		after(time.Second, "second")
	}
	put(t, o.Cert, first)
	put(t, o.Key, first)
	after(time.Second, "first")
}
