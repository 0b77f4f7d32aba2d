package main

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
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"homeroom/datadir"
	"homeroom/mdns"
)

const (
	ownCertYears  = 10
	renewBefore   = 30 * 24 * time.Hour
	mostCertNames = 64 // and so many addresses: a machine that travels collects them
)

// ownCertPath is the file with the certificate that the server makes, and its key.
func ownCertPath(folder string) string { return filepath.Join(folder, "tls.pem") }

// ownCert is a certificate that the server makes for itself, with the names and
// addresses of its machine. It is made anew when one of these is not in it, or
// when it is about to end. The key stays, so that who trusts that does not notice.
type ownCert struct {
	path  string
	names func() certNames
	leaf  *x509.Certificate // nil: not read yet
	key   crypto.PrivateKey
}

// certNames is what a machine is reached under.
type certNames struct {
	hosts []string
	ips   []netip.Addr
}

func newOwnCert(folder string) *ownCert {
	return &ownCert{path: ownCertPath(folder), names: machineNames}
}

// look reads the certificate the first time, and makes it where it has to be
// made. It can return both a certificate to use and what is wrong.
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
	text, err := os.ReadFile(c.path)
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
func (c *ownCert) renew(want certNames, now time.Time) (*tls.Certificate, error) {
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
	text, err := makeCertificate(key, want, now)
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

// covers tells whether a certificate has these names and addresses.
func covers(leaf *x509.Certificate, want certNames) bool {
	has := certNames{}.with(leaf)
	for _, host := range want.hosts {
		if !slices.Contains(has.hosts, host) {
			return false
		}
	}
	for _, ip := range want.ips {
		if !slices.Contains(has.ips, ip) {
			return false
		}
	}
	return true
}

// with adds a certificate's names and addresses: a machine that goes back and
// forth between two networks needs one certificate for both.
func (n certNames) with(leaf *x509.Certificate) certNames {
	for _, host := range leaf.DNSNames {
		if len(n.hosts) < mostCertNames && !slices.Contains(n.hosts, host) {
			n.hosts = append(n.hosts, host)
		}
	}
	for _, b := range leaf.IPAddresses {
		ip, _ := netip.AddrFromSlice(b)
		if ip = ip.Unmap(); len(n.ips) < mostCertNames && !slices.Contains(n.ips, ip) {
			n.ips = append(n.ips, ip)
		}
	}
	return n
}

// makeCertificate is a certificate signed by its own key, both in PEM. It starts
// in 1970, where a Pi wakes up that has no clock battery; a wrong clock does
// not shorten its life either.
func makeCertificate(key crypto.PrivateKey, names certNames, now time.Time) ([]byte, error) {
	if now.Before(firstWall) {
		now = firstWall
	}
	template := x509.Certificate{
		Subject:   pkix.Name{CommonName: names.hosts[0]},
		NotBefore: time.Unix(0, 0), NotAfter: now.AddDate(ownCertYears, 0, 0),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true, DNSNames: names.hosts,
	}
	for _, ip := range names.ips {
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

// inode is a file's number: a file that was put in another's place has its own.
func inode(info fs.FileInfo) uint64 {
	if sys, ok := info.Sys().(*syscall.Stat_t); ok {
		return sys.Ino
	}
	return 0
}

// machineNames is every name and address under which this machine is reached, on
// a network or by itself.
func machineNames() certNames {
	n := certNames{ips: []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}}
	if host, err := os.Hostname(); err == nil {
		n.hosts = hostNames(host)
	} else {
		n.hosts = hostNames("")
	}
	addrs, _ := net.InterfaceAddrs() // without them there is still this machine itself
	for _, a := range addrs {
		p, err := netip.ParsePrefix(a.String())
		if err != nil {
			continue
		}
		ip := p.Addr().Unmap()
		if !slices.Contains(n.ips, ip) && !mdns.Fleeting(ip) {
			n.ips = append(n.ips, ip)
		}
	}
	return n
}

// also adds a host name, if there is one and it is not there yet.
func (n certNames) also(host string) certNames {
	if host != "" && !slices.Contains(n.hosts, host) {
		n.hosts = append([]string{host}, n.hosts...)
	}
	return n
}

// hostNames is what a machine with this host name is called.
func hostNames(host string) []string {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	short, _, _ := strings.Cut(host, ".")
	var names []string
	for _, name := range []string{host, short, short + ".local", "localhost"} {
		if isHostName(name) && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// isHostName tells whether a certificate can hold it: people call machines all
// sorts of things.
func isHostName(s string) bool {
	return s != "" && s[0] != '.' && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '.' && r != '_'
	})
}
