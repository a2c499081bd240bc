"""Statistics, Markdown tables and figures from the rows of `tfkd.sweeps.Results`, or from any dicts of their form."""

from tfkd.reporting._layer_report import layer_report as layer_report
from tfkd.reporting.figures import accuracy_by_method as accuracy_by_method
from tfkd.reporting.figures import new_figure as new_figure
from tfkd.reporting.figures import save_figure as save_figure
from tfkd.reporting.figures import training_curves as training_curves
from tfkd.reporting.statistics import compare as compare
from tfkd.reporting.statistics import difference_of_means as difference_of_means
from tfkd.reporting.statistics import format_mean_std as format_mean_std
from tfkd.reporting.statistics import mean_and_std as mean_and_std
from tfkd.reporting.tables import markdown_table as markdown_table
from tfkd.reporting.tables import table as table
from tfkd.reporting.tables import write_report as write_report
