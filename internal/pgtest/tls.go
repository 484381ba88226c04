package pgtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// authority signs certificates for one test.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// StrangerCA writes the certificate of an authority that signed nothing, for
// tests that must not trust a server, and returns its path.
func StrangerCA(tb testing.TB) string {
	tb.Helper()
	ca, err := newAuthority()
	if err != nil {
		tb.Fatal(err)
	}
	path := filepath.Join(tb.TempDir(), "stranger.crt")
	if err := os.WriteFile(path, certPEM(ca.cert.Raw), 0o600); err != nil {
		tb.Fatal(err)
	}
	return path
}

// writeCertificates writes an authority's and the server's certificate and
// returns the settings that turn TLS on.
func (c *Cluster) writeCertificates(hosts []string) ([]string, error) {
	ca, err := newAuthority()
	if err != nil {
		return nil, err
	}
	cert, key, err := ca.issue(hosts)
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{"ca.crt": certPEM(ca.cert.Raw), "server.crt": cert, "server.key": key}
	for name, text := range files {
		if err := c.owner.writeFile(filepath.Join(c.dir, name), string(text)); err != nil {
			return nil, err
		}
	}
	c.CAFile = filepath.Join(c.dir, "ca.crt")
	return []string{
		settingLine("ssl", "on"),
		settingLine("ssl_cert_file", filepath.Join(c.dir, "server.crt")),
		settingLine("ssl_key_file", filepath.Join(c.dir, "server.key")),
	}, nil
}

func newAuthority() (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := certTemplate("pgtest authority")
	template.IsCA = true
	template.BasicConstraintsValid = true
	template.KeyUsage = x509.KeyUsageCertSign
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	return &authority{cert, key}, err
}

// issue makes a server certificate for hosts and its key, both as PEM.
func (a *authority) issue(hosts []string) (cert, key []byte, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	template := certTemplate(hosts[0])
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, private.Public(), a.key)
	if err != nil {
		return nil, nil, err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, nil, err
	}
	return certPEM(der), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), nil
}

func certTemplate(name string) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
	}
}

func certPEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}
