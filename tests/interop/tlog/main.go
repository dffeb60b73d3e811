// Command tlog checks a log of ours, and a JWE, with libraries that we did not write.
//
//	tlog log FOLDER VKEY [OLD-CHECKPOINT]   signature, every inclusion, consistency with an older checkpoint
//	tlog jwe KEY.pem FILE                   opens a flattened JWE, prints the plaintext
package main

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	jose "github.com/go-jose/go-jose/v4"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// files reads C2SP tlog-tiles: the same tiles as sumdb's, without the height in their paths.
type files struct{ root string }

func (f files) Height() int { return 8 }

func (f files) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var found [][]byte
	for _, tile := range tiles {
		path := strings.TrimPrefix(tile.Path(), "tile/8/")
		data, err := os.ReadFile(filepath.Join(f.root, "tile", path))
		if err != nil {
			return nil, err
		}
		found = append(found, data)
	}
	return found, nil
}

func (f files) SaveTiles([]tlog.Tile, [][]byte) {}

func open(content []byte, verifier note.Verifier) (tlog.Tree, error) {
	signed, err := note.Open(content, note.VerifierList(verifier))
	if err != nil {
		return tlog.Tree{}, err
	}
	lines := strings.SplitN(signed.Text, "\n", 4)
	if len(lines) < 4 || lines[0] != verifier.Name() {
		return tlog.Tree{}, fmt.Errorf("not a checkpoint of %s", verifier.Name())
	}
	// sumdb's tree notes differ from C2SP checkpoints in their first line alone.
	return tlog.ParseTree([]byte("go.sum database tree\n" + lines[1] + "\n" + lines[2] + "\n"))
}

func entries(root string, size int64) ([][]byte, error) {
	var all [][]byte
	for start := int64(0); start < size; start += 256 {
		width := min(256, size-start)
		path := tlog.Tile{H: 8, L: 0, N: start / 256, W: int(width)}.Path()
		data, err := os.ReadFile(filepath.Join(root, "tile", "entries", strings.TrimPrefix(path, "tile/8/0/")))
		if err != nil {
			return nil, err
		}
		for len(data) >= 2 {
			end := 2 + int(data[0])<<8 + int(data[1])
			if end > len(data) {
				return nil, fmt.Errorf("bundle cut short at entry %d", len(all))
			}
			all, data = append(all, data[2:end]), data[end:]
		}
	}
	return all, nil
}

func checkLog(root, vkey, older string) error {
	verifier, err := note.NewVerifier(strings.TrimSpace(vkey))
	if err != nil {
		return err
	}
	content, err := os.ReadFile(filepath.Join(root, "checkpoint"))
	if err != nil {
		return err
	}
	tree, err := open(content, verifier)
	if err != nil {
		return err
	}
	reader := tlog.TileHashReader(tree, files{root})
	all, err := entries(root, tree.N)
	if err != nil {
		return err
	}
	if int64(len(all)) != tree.N {
		return fmt.Errorf("%d entries of %d", len(all), tree.N)
	}
	for index, entry := range all {
		proof, err := tlog.ProveRecord(tree.N, int64(index), reader)
		if err != nil {
			return err
		}
		if err := tlog.CheckRecord(proof, tree.N, tree.Hash, int64(index), tlog.RecordHash(entry)); err != nil {
			return fmt.Errorf("entry %d: %w", index, err)
		}
	}
	fmt.Printf("size %d inclusions %d\n", tree.N, len(all))
	if older == "" {
		return nil
	}
	content, err = os.ReadFile(older)
	if err != nil {
		return err
	}
	before, err := open(content, verifier)
	if err != nil {
		return err
	}
	proof, err := tlog.ProveTree(tree.N, before.N, reader)
	if err != nil {
		return err
	}
	if err := tlog.CheckTree(proof, tree.N, tree.Hash, before.N, before.Hash); err != nil {
		return err
	}
	fmt.Printf("extends %d\n", before.N)
	return nil
}

func openJWE(keyFile, file string) error {
	encoded, err := os.ReadFile(keyFile)
	if err != nil {
		return err
	}
	block, _ := pem.Decode(encoded)
	if block == nil {
		return fmt.Errorf("%s is not PEM", keyFile)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return err
	}
	body, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	parsed, err := jose.ParseEncryptedJSON(string(body),
		[]jose.KeyAlgorithm{jose.RSA_OAEP_256, jose.ECDH_ES_A256KW}, []jose.ContentEncryption{jose.A256GCM})
	if err != nil {
		return err
	}
	plain, err := parsed.Decrypt(key)
	if err != nil {
		return err
	}
	_, err = os.Stdout.Write(plain)
	return err
}

func run(arguments []string) error {
	switch {
	case len(arguments) >= 3 && arguments[0] == "log":
		return checkLog(arguments[1], arguments[2], strings.Join(arguments[3:], ""))
	case len(arguments) == 3 && arguments[0] == "jwe":
		return openJWE(arguments[1], arguments[2])
	}
	return fmt.Errorf("usage: tlog log FOLDER VKEY [OLD-CHECKPOINT] | tlog jwe KEY.pem FILE")
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
