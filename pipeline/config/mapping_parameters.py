"""Parameters of Elasticsearch's mappings that may stand in one here, and what they come to."""

TOP_PARAMETERS = {
    "_data_stream_timestamp": "no effect",
    "_meta": "kept with the table",
    "_routing": "no effect",
    "_size": "no effect",
    "_source": "no effect: the whole document is kept",
    "_tier": "no effect",
    "date_detection": "no effect: only mapped fields get columns",
    "dynamic": "no effect: only mapped fields get columns, all others stay in _source",
    "dynamic_date_formats": "no effect: only mapped fields get columns",
    "dynamic_templates": "no effect: only mapped fields get columns",
    "numeric_detection": "no effect: only mapped fields get columns",
    "runtime": "no effect: runtime fields are not computed",
    "subobjects": "no effect: dotted names are read either way",
}
"""Keys at the top of a mapping -> what they come to."""

PARAMETERS = frozenset(
    {
        *(
            "boost",
            "cluster_by",
            "contexts",
            "default_metric",
            "depth_limit",
            "dims",
            "doc_values",
            "dynamic",
        ),
        *("eager_global_ordinals", "element_type", "enable_position_increments", "fielddata"),
        *(
            "fielddata_frequency_filter",
            "ignore_z_value",
            "include_in_parent",
            "include_in_root",
        ),
        *(
            "index",
            "index_phrases",
            "index_prefixes",
            "locale",
            "max_input_length",
            "max_shingle_size",
            "meta",
        ),
        *(
            "metrics",
            "model_settings",
            "normalizer",
            "norms",
            "on_script_error",
            "orientation",
            "path",
        ),
        *("position_increment_gap", "positive_score_impact", "precision", "preserve_position_increments"),
        *("preserve_separators", "priority", "relations", "script", "search_analyzer"),
        *(
            "search_quote_analyzer",
            "similarity",
            "split_queries_on_whitespace",
            "store",
            "strategy",
            "subobjects",
        ),
        *("synthetic_source_keep", "term_vector", "time_series_dimension", "time_series_metric"),
        *("time_series_dimensions", "tree", "tree_levels"),
    }
)
"""Parameters of field types that an existing mapping may hold and that change nothing here."""
