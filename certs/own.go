package certs

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"time"

	"homeroom/datadir"
)

const (
	ownYears    = 10
	renewBefore = 30 * 24 * time.Hour
	mostNames   = 64 // and so many addresses: a machine that travels collects them
)

// ownCert is a certificate that the server makes for itself, with the names and
// addresses of its machine. It is made anew when one of these is not in it, or
// when it is about to end. The key stays, so that clients that trust it do not notice.
type ownCert struct {
	path     string
	names    func() Names
	earliest time.Time
	leaf     *x509.Certificate // nil: not read yet
	key      crypto.PrivateKey
}

// Names are the names and addresses under which a machine is reached.
type Names struct {
	Hosts []string
	Addrs []netip.Addr
}

func newOwnCert(o Options) *ownCert {
	return &ownCert{path: o.path(), names: o.Names, earliest: o.Earliest}
}

// look reads the certificate the first time, and makes it where it has to be
// made. It can return both a certificate to use and an error.
func (c *ownCert) look(now time.Time) (pair *tls.Certificate, wrong error) {
	if c.leaf == nil {
		if pair, wrong = c.read(); wrong != nil && !errors.Is(wrong, errDamagedCert) {
			return nil, wrong
		}
	}
	want := c.names()
	if c.leaf != nil && covers(c.leaf, want) && now.Before(c.leaf.NotAfter.Add(-renewBefore)) {
		return pair, wrong
	}
	fresh, err := c.renew(want, now)
	if err != nil {
		return pair, fmt.Errorf("cannot make the TLS certificate %s: %w", c.path, err)
	}
	return fresh, wrong
}

var errDamagedCert = errors.New("the TLS certificate was damaged; there is a new one now, and the old one is put aside")

// read takes the certificate from its file, if there is one. A damaged one is put
// aside: chat with a new certificate is better than none.
func (c *ownCert) read() (*tls.Certificate, error) {
	text, err := datadir.ReadFile(c.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the TLS certificate: %w", err)
	}
	pair, err := tls.X509KeyPair(text, text)
	if err != nil {
		aside := c.path + ".damaged"
		if err := os.Rename(c.path, aside); err != nil {
			return nil, fmt.Errorf("the TLS certificate is damaged and cannot be put aside: %w", err)
		}
		return nil, fmt.Errorf("%w as %s: %w", errDamagedCert, aside, err)
	}
	c.leaf, c.key = pair.Leaf, pair.PrivateKey
	return &pair, nil
}

// renew makes the certificate and stores it.
func (c *ownCert) renew(want Names, now time.Time) (*tls.Certificate, error) {
	if c.leaf != nil {
		want = want.with(c.leaf)
	}
	key := c.key
	if key == nil {
		var err error
		if key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
			return nil, err
		}
	}
	text, err := makeCertificate(key, want, latest(now, c.earliest))
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(text, text)
	if err != nil {
		return nil, err
	}
	if err := datadir.WriteFile(c.path, bytes.NewReader(text), 0o600); err != nil {
		return nil, err
	}
	c.leaf, c.key = pair.Leaf, key
	return &pair, nil
}

// covers reports whether a certificate has these names and addresses.
func covers(leaf *x509.Certificate, want Names) bool {
	has := Names{}.with(leaf)
	for _, host := range want.Hosts {
		if !slices.Contains(has.Hosts, host) {
			return false
		}
	}
	for _, ip := range want.Addrs {
		if !slices.Contains(has.Addrs, ip) {
			return false
		}
	}
	return true
}

// with adds a certificate's names and addresses: a machine that goes back and
// forth between two networks needs one certificate for both.
func (n Names) with(leaf *x509.Certificate) Names {
	for _, host := range leaf.DNSNames {
		if len(n.Hosts) < mostNames && !slices.Contains(n.Hosts, host) {
			n.Hosts = append(n.Hosts, host)
		}
	}
	for _, b := range leaf.IPAddresses {
		ip, _ := netip.AddrFromSlice(b)
		if ip = ip.Unmap(); len(n.Addrs) < mostNames && !slices.Contains(n.Addrs, ip) {
			n.Addrs = append(n.Addrs, ip)
		}
	}
	return n
}

// latest is the later of two moments.
func latest(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// makeCertificate is a certificate signed by its own key, both in PEM. It starts
// in 1970, where a Pi wakes up that has no clock battery; a wrong clock does
// not shorten its life either.
func makeCertificate(key crypto.PrivateKey, names Names, now time.Time) ([]byte, error) {
	template := x509.Certificate{
		Subject:   pkix.Name{CommonName: names.Hosts[0]},
		NotBefore: time.Unix(0, 0), NotAfter: now.AddDate(ownYears, 0, 0),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true, DNSNames: names.Hosts,
	}
	for _, ip := range names.Addrs {
		template.IPAddresses = append(template.IPAddresses, ip.AsSlice())
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("a key of type %T cannot sign", key)
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, signer.Public(), signer)
	if err != nil {
		return nil, err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	var text bytes.Buffer
	err = errors.Join(pem.Encode(&text, &pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.Encode(&text, &pem.Block{Type: "PRIVATE KEY", Bytes: secret}))
	return text.Bytes(), err
}
