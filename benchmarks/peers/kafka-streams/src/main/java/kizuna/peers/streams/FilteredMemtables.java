package kizuna.peers.streams;

import org.apache.kafka.streams.state.RocksDBConfigSetter;
import org.rocksdb.Options;

import java.util.Map;

/** RocksDB with a Bloom filter over what is not on disk yet too: many customers asked for are not there at all. */
public final class FilteredMemtables implements RocksDBConfigSetter {
    private static final double FILTER_SHARE = 0.02;

    @Override
    public void setConfig(String store, Options options, Map<String, Object> settings) {
        options.setMemtablePrefixBloomSizeRatio(FILTER_SHARE);
        options.setMemtableWholeKeyFiltering(true);
    }

    @Override
    public void close(String store, Options options) {}
}
